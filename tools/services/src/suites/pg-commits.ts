/** What the SQL adapter does where a commit fails to serialise, and where its answer is lost. */
import { setTimeout as sleep } from 'node:timers/promises';
import { readBlob } from '@vramkit/storage';
import { cockroachStore, type PgPool } from '@vramkit/storage/cockroach';
import { testBytes } from '@vramkit/storage/testing';
import pg from 'pg';
import { afterAll, describe, expect, it } from 'vitest';
import { cuttingProxy } from '../cut-connection.js';
import { serviceVariable } from '../environment.js';
import { pgPool } from '../stores.js';

const pool = await pgPool();
afterAll(() => pool.end());
const random = Math.random;

/** The pool, and the SQLSTATEs of the statements that failed through it. */
function watched(): { readonly pool: PgPool; readonly states: string[] } {
  const states: string[] = [];
  const connect: PgPool['connect'] = async () => {
    const client = await pool.connect();
    return {
      query: (text, values) =>
        client.query(text, values).catch((error: unknown) => {
          states.push(error instanceof pg.DatabaseError ? String(error.code) : 'connection');
          throw error;
        }),
      release: (destroy) => client.release(destroy),
      on: (event, listener) => client.on(event, listener),
      removeListener: (event, listener) => client.removeListener(event, listener),
    };
  };
  return { pool: { connect }, states };
}

describe('a commit', () => {
  it('that fails to serialise (40001) runs again', async () => {
    const { pool: watchedPool, states } = watched();
    const store = await cockroachStore({ pool: watchedPool, random });
    await store.put('contended', testBytes(10, 1));
    const rival = await pool.connect();
    await rival.query('BEGIN ISOLATION LEVEL SERIALIZABLE');
    await rival.query('UPDATE vramkit_blob SET size = size WHERE key = $1', [
      Buffer.from('contended'),
    ]);
    states.length = 0;
    const put = store.put('contended', testBytes(10, 2));
    // It waits for the row of the rival, and loses when the rival commits.
    const waiting = `SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'`;
    while ((await pool.query(waiting)).rowCount === 0) await sleep(5);
    await rival.query('COMMIT');
    rival.release();
    await put;
    expect(states).toContain('40001');
    expect(await readBlob(store, 'contended')).toEqual(testBytes(10, 2));
  });

  it.each([
    { moment: 'answer', isApplied: true },
    { moment: 'request', isApplied: false },
  ] as const)(
    'whose $moment is lost is looked up by its id: applied is $isApplied',
    async ({ moment, isApplied }) => {
      const url = new URL(serviceVariable('VRAMKIT_PG_URL'));
      using proxy = await cuttingProxy(Number(url.port));
      url.port = String(proxy.port);
      const cut = new pg.Pool({ connectionString: url.href });
      cut.on('error', () => undefined);
      const store = await cockroachStore({ pool: cut, random });
      const key = `ambiguous/${moment}`;
      proxy.cutOnce = { text: 'COMMIT', moment };
      const put = store.put(key, testBytes(100), { condition: 'absent' });
      if (isApplied) {
        const info = await put;
        expect(await store.head(key)).toEqual(info);
      } else {
        await expect(put).rejects.toMatchObject({ code: 'unavailable', retryable: true });
        expect(await store.head(key)).toBeUndefined();
      }
      expect(proxy.cutOnce).toBeUndefined(); // it was cut
      await store.delete(key);
      await cut.end();
    },
  );
});
