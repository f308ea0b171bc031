/** What needs no database; the contract is shown against PostgreSQL in tools/services. */
import { describe, expect, it } from 'vitest';
import { cockroachStore, type PgClient } from './cockroach.js';

describe('cockroach', () => {
  it('gives a key that begins with U+FEFF as it is', async () => {
    const key = '\u{feff}a';
    const client: PgClient = {
      query: (text) => {
        const isPage = text.includes('FROM vramkit_blob') && text.includes('ORDER BY');
        const rows = isPage ? [{ key: Buffer.from(key), id: 'x', size: '1' }] : [];
        return Promise.resolve({ rows, rowCount: rows.length });
      },
      release: () => undefined,
      on: () => undefined,
      removeListener: () => undefined,
    };
    const pool = { connect: () => Promise.resolve(client) };
    const store = await cockroachStore({ pool, random: Math.random });
    for await (const info of store.list('', { limit: 1 })) expect(info.key).toBe(key);
    expect.assertions(1);
  });
});
