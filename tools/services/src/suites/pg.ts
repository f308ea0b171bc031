/** The SQL adapter on PostgreSQL, which stands in for CockroachDB: SERIALIZABLE by default. */
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { readBlob } from '@vramkit/storage';
import { cockroachStore } from '@vramkit/storage/cockroach';
import { describeStore, testBytes } from '@vramkit/storage/testing';
import { afterAll, describe, expect, it } from 'vitest';
import { cuttingProxy, expectWholeReads } from '../cut-connection.js';
import { giantBytes, serviceVariable } from '../environment.js';
import { expectOpens } from '../by-address.js';

const pools = [1, 2].map(
  () => new pg.Pool({ connectionString: serviceVariable('VRAMKIT_PG_URL'), max: 8 }),
);
const [pool, otherPool] = pools as [pg.Pool, pg.Pool]; // two were made
for (const each of pools) each.on('error', () => undefined);
afterAll(() => Promise.all(pools.map((each) => each.end())));
const random = (): number => Math.random();

describeStore(
  'PostgreSQL',
  async () => ({
    store: await cockroachStore({ pool, random }),
    other: await cockroachStore({ pool: otherPool, random }),
    reopen: () => cockroachStore({ pool: otherPool, random }),
    prefix: `${randomUUID()}/`,
  }),
  { describe, it, expect },
  { pageKeys: 1203, raceRounds: 24, giantBytes },
);

describe('PostgreSQL', () => {
  it('is opened by its address', () => expectOpens(serviceVariable('VRAMKIT_PG_URL')));

  it('is told from CockroachDB, and leaves no rows of failed or replaced puts', async () => {
    const store = await cockroachStore({ pool, random });
    expect(store.database).toBe('postgresql');
    const body = testBytes(5 * 2 ** 20 + 1);
    const countOf = (table: string) => async (): Promise<number> => {
      const { rows } = await pool.query(`SELECT count(*)::int AS n FROM ${table}`);
      return (rows[0] as { n: number }).n;
    };
    const [count, pending] = [countOf('vramkit_chunk'), countOf('vramkit_pending')];
    // Writers that other suites killed have left some.
    const [before, pendingBefore] = [await count(), await pending()];
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield body;
      throw new RangeError('no more');
    }
    for (let i = 0; i < 3; i += 1) await store.put('rows', body);
    await expect(store.put('rows', failing())).rejects.toBeInstanceOf(RangeError);
    expect((await count()) - before).toBe(11);
    expect(Buffer.compare(await readBlob(store, 'rows'), body)).toBe(0);
    await store.delete('rows');
    expect(await count()).toBe(before);
    expect(await pending()).toBe(pendingBefore);
  });

  it('never takes a connection that was cut for the end of a blob', async () => {
    const url = new URL(serviceVariable('VRAMKIT_PG_URL'));
    using proxy = await cuttingProxy(Number(url.port));
    url.port = String(proxy.port);
    const cut = new pg.Pool({ connectionString: url.href });
    cut.on('error', () => undefined);
    await expectWholeReads(await cockroachStore({ pool: cut, random }), proxy);
    await cut.end();
  });

  it('survives the death of its connections, and puts no secret in an error', async () => {
    const store = await cockroachStore({ pool, random });
    await store.put('kept', testBytes(100));
    await otherPool.query(
      'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()',
    );
    // The pool may hand out a dead connection once more each.
    let bytes: Uint8Array | undefined;
    for (let i = 0; i < 10 && bytes === undefined; i += 1) {
      bytes = await readBlob(store, 'kept').catch((error: unknown) => {
        expect(error).toMatchObject({ code: 'unavailable', retryable: true });
        return undefined;
      });
    }
    expect(bytes).toEqual(testBytes(100));
    const secret = 'hunter2-secret';
    const url = new URL(serviceVariable('VRAMKIT_PG_URL'));
    url.password = secret;
    url.port = '1';
    const nowhere = new pg.Pool({ connectionString: url.href });
    const error = await cockroachStore({ pool: nowhere, random }).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'unavailable' });
    expect(`${String(error)}${JSON.stringify(error)}`).not.toContain(secret);
    await nowhere.end();
  });
});
