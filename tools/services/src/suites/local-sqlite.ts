/** One SQLite file keeps the contract, for two connections at once, on the driver of npm libsql. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import Database from 'libsql';
import { describe, expect, it } from 'vitest';
import { readBlob, type BlobStore } from '@vramkit/storage';
import { sqliteStore } from '@vramkit/storage/sqlite';
import { describeStore, testBytes } from '@vramkit/storage/testing';
import { expectOpens } from '../by-address.js';
import { giantBytes } from '../environment.js';

describeStore(
  'sqlite',
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-sqlite-'));
    const databases: Database.Database[] = [];
    const open = (): BlobStore => {
      const database = new Database(join(folder, 'blobs.db'));
      databases.push(database);
      return sqliteStore({ database });
    };
    const close = async (): Promise<void> => {
      for (const database of databases) database.close();
      await rm(folder, { recursive: true });
    };
    return { store: open(), other: open(), reopen: open, close };
  },
  { describe, it, expect },
  { giantBytes },
);

describe('sqlite', () => {
  it('gives two databases no version in common, and keeps those of one', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-sqlite-'));
    const versionIn = async (name: string): Promise<string | undefined> => {
      const database = new Database(join(folder, name));
      const store = sqliteStore({ database });
      if ((await store.head('a')) === undefined) await store.put('a', testBytes(10));
      const info = await store.head('a');
      database.close();
      return info?.version;
    };
    const version = await versionIn('one.db');
    expect(await versionIn('one.db')).toBe(version);
    expect(await versionIn('two.db')).not.toBe(version);
    // A file of a time before databases had an id.
    const old = new Database(join(folder, 'two.db'));
    old.exec('DROP TABLE vramkit_store');
    old.close();
    expect(await versionIn('two.db')).toMatch(/^1-[0-9a-f]{16}$/);
    await rm(folder, { recursive: true });
  });

  it('waits for a process that has the new file locked', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-sqlite-'));
    const file = join(folder, 'blobs.db');
    const holder = new Worker(
      `const { parentPort, workerData } = require('node:worker_threads');
       const database = new (require(workerData.driver))(workerData.file);
       database.exec('BEGIN EXCLUSIVE');
       parentPort.postMessage('locked');
       setTimeout(() => { database.exec('COMMIT'); database.close(); }, 300);`,
      {
        eval: true,
        workerData: { driver: createRequire(import.meta.url).resolve('libsql'), file },
      },
    );
    const exit = once(holder, 'exit');
    await once(holder, 'message');
    const database = new Database(file);
    expect(await sqliteStore({ database }).head('a')).toBeUndefined();
    database.close();
    await exit;
    await rm(folder, { recursive: true });
  });

  it('lets the event loop run while it moves a large blob, and hears the signal', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-sqlite-'));
    const database = new Database(join(folder, 'blobs.db'));
    const store = sqliteStore({ database });
    const body = testBytes(64 * 2 ** 20);
    const turnsOf = async (call: Promise<unknown>): Promise<number> => {
      let turns = 0;
      let isOver = false;
      const next = (): void => {
        turns += 1;
        if (!isOver) setImmediate(next);
      };
      setImmediate(next);
      await call;
      isOver = true;
      return turns;
    };
    const drain = async (items: AsyncIterable<unknown>): Promise<void> => {
      for await (const item of items) expect(item).toBeDefined();
    };
    expect(await turnsOf(store.put('a', body))).toBeGreaterThanOrEqual(15); // of 4 MiB
    expect(await turnsOf(drain(store.get('a')))).toBeGreaterThanOrEqual(63); // of 1 MiB
    expect(await turnsOf(store.delete('a'))).toBeGreaterThanOrEqual(3); // of 16 MiB
    for (let i = 0; i < 600; i += 1) await store.put(`b/${i}`, testBytes(1));
    expect(await turnsOf(drain(store.list('b/')))).toBeGreaterThanOrEqual(2); // of 256 keys

    await store.put('a', body);
    const inTime = (call: (signal: AbortSignal) => Promise<unknown>): Promise<unknown> => {
      const controller = new AbortController();
      setImmediate(() => controller.abort());
      return expect(call(controller.signal)).rejects.toMatchObject({ code: 'aborted' });
    };
    await inTime((signal) => store.put('a', testBytes(64 * 2 ** 20, 2), { signal }));
    await inTime((signal) => drain(store.get('a', { signal })));
    await inTime((signal) => drain(store.list('b/', { signal })));
    expect(Buffer.compare(await readBlob(store, 'a'), body)).toBe(0);
    database.close();
    await rm(folder, { recursive: true });
  });

  it('is opened by its address', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-sqlite-'));
    await expectOpens(`sqlite://${folder}/a%20b.db`);
    await rm(folder, { recursive: true });
  });

  it('keeps no rows of failed puts and replaced blobs, and reads its file again', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-sqlite-'));
    const database = new Database(join(folder, 'blobs.db'));
    const store = sqliteStore({ database });
    const body = testBytes(20 * 2 ** 20 + 1);
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield body;
      throw new RangeError('no more');
    }
    await store.put('a', body);
    await store.put('a', body);
    await expect(store.put('a', failing())).rejects.toBeInstanceOf(RangeError);
    const count = (table: string): unknown =>
      Object.values(database.prepare(`SELECT count(*) AS n FROM ${table}`).get([]) as object)[0];
    expect([count('vramkit_chunk'), count('vramkit_blob'), count('vramkit_put')]).toEqual([
      21, 1, 0,
    ]);
    database.close();
    const again = new Database(join(folder, 'blobs.db'));
    expect(Buffer.compare(await readBlob(sqliteStore({ database: again }), 'a'), body)).toBe(0);
    again.close();
    await rm(folder, { recursive: true });
  });
});
