/** One SQLite file keeps the contract, for two connections at once, on the driver of npm libsql. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
  it('is opened by its address', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-sqlite-'));
    await expectOpens(`sqlite://${folder}/a%20b.db`);
    await rm(folder, { recursive: true });
  });

  it('keeps no rows of failed puts and replaced blobs, and reads its file again', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-sqlite-'));
    const database = new Database(join(folder, 'blobs.db'));
    const store = sqliteStore({ database });
    const body = testBytes(10 * 2 ** 20 + 1);
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
      11, 1, 0,
    ]);
    database.close();
    const again = new Database(join(folder, 'blobs.db'));
    expect(Buffer.compare(await readBlob(sqliteStore({ database: again }), 'a'), body)).toBe(0);
    again.close();
    await rm(folder, { recursive: true });
  });
});
