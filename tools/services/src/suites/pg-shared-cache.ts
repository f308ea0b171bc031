/**
 * The shared prefix cache: races decided by the database, garbage removed by lease, and a worker
 * that is killed at any point harms nobody. The index is in PostgreSQL; bytes are in files.
 */
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PrefixIndex, SharedBlocks } from '@vramkit/example-shared-prefix-cache';
import { posixStore, type BlobStore } from '@vramkit/storage';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { killCount } from '../kill-writers.js';
import { serviceVariable } from '../environment.js';
import { blockBytes, blockNames } from '../shared-cache.js';
import { countBlobs, outliveKilledWorkers } from '../shared-cache-kills.js';
import { pgPool } from '../stores.js';

const pool = await pgPool();
const random = (): number => Math.random();
afterAll(() => pool.end());
beforeEach(async () => {
  await PrefixIndex.open(pool, random);
  await pool.query('DELETE FROM vramkit_prefix_block');
});

async function withFolder(use: (folder: string, store: BlobStore) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'vramkit-shared-'));
  try {
    await use(folder, await posixStore({ folder }));
  } finally {
    await rm(folder, { recursive: true });
  }
}

describe('shared prefix cache', () => {
  const [name = ''] = blockNames;
  const bytes = blockBytes(name);

  it('lets one of many writers write, and all read the same', async () => {
    await withFolder(async (_, store) => {
      const index = await PrefixIndex.open(pool, random);
      const all = Array.from({ length: 12 }, () => new SharedBlocks(store, index));
      const stored = await Promise.all(all.map((blocks) => blocks.store(name, bytes)));
      expect(stored.filter(Boolean)).toEqual([true]);
      expect(await countBlobs(store)).toBe(1);
      for (const blocks of all) {
        expect(await blocks.match([name, blockNames[1] ?? ''])).toBe(1);
        expect(await blocks.load(name)).toEqual(bytes);
      }
      expect(await index.usage()).toEqual({
        rows: 1,
        storedBlocks: 1,
        storedBytes: bytes.length,
      });
    });
  });

  it('keeps what is read for its lease, and removes what nobody used', async () => {
    await withFolder(async (_, store) => {
      const index = await PrefixIndex.open(pool, random);
      const blocks = new SharedBlocks(store, index, { workMs: 400, keepMs: 800 });
      await blocks.store(name, bytes);
      for (let i = 0; i < 5; i += 1) {
        await sleep(300);
        expect(await blocks.match([name])).toBe(1);
        expect(await blocks.collect()).toBe(0);
        expect(await blocks.load(name)).toEqual(bytes);
      }
      await sleep(900);
      expect(await blocks.load(name)).toBeUndefined(); // its own lease is over: not even tried
      expect(await blocks.collect()).toBe(1);
      expect([await index.usage(), await countBlobs(store)]).toMatchObject([{ rows: 0 }, 0]);
      expect(await blocks.store(name, bytes)).toBe(true);
    });
  });

  it('removes what dead writers left at each step, and lets a late one do no harm', async () => {
    await withFolder(async (_, store) => {
      const index = await PrefixIndex.open(pool, random);
      const blocks = new SharedBlocks(store, index, { workMs: 200, keepMs: 400 });
      // Killed after the claim, and after the put.
      const claims = blockNames.slice(0, 2).map((each) => ({ name: each, blob: randomUUID() }));
      for (const claim of claims) expect(await index.claim(claim, 1, 200)).toBe(true);
      const [, second] = claims;
      const key = `shared-kv/${second?.name.slice(0, 2)}/${second?.name}/${second?.blob}`;
      await store.put(key, bytes);
      expect(await blocks.store(name, bytes)).toBe(false); // claimed by another
      await sleep(300);
      expect(await blocks.collect()).toBe(2);
      expect(await countBlobs(store)).toBe(0);
      // One that wakes up after its lease: its blob is nobody's, its claim is gone.
      await store.put(key, bytes);
      expect(await index.publish(second ?? { name, blob: '' }, 1000)).toBe(false);
      expect(await blocks.store(name, bytes)).toBe(true);
      expect(await blocks.sweep()).toBe(1);
      expect(await blocks.match([name])).toBe(1);
      expect(await blocks.load(name)).toEqual(bytes);
    });
  });

  it('forgets a block whose bytes are gone or damaged', async () => {
    await withFolder(async (_, store) => {
      const index = await PrefixIndex.open(pool, random);
      const blocks = new SharedBlocks(store, index);
      await blocks.store(name, bytes);
      await blocks.match([name]);
      for await (const { key } of store.list('')) await store.put(key, bytes); // no checksums
      expect(await blocks.load(name)).toBeUndefined();
      expect(await blocks.match([name])).toBe(0);
      expect(await blocks.collect()).toBe(1);
      expect(await blocks.store(name, bytes)).toBe(true);
    });
  });

  it(`goes on through ${killCount} killed workers, with never a wrong byte`, async () => {
    await withFolder(async (folder) => outliveKilledWorkers('posix', folder, pool));
  }, 600_000);

  it('answers as a lone process does, with the prefix loaded (tiny-moe, 2 workers)', async () => {
    await withFolder(async (folder) => {
      const program = 'examples/shared-prefix-cache/src/main.ts';
      const root = join(import.meta.dirname, '../../../..');
      const args = [
        '--conditions=@vramkit/source',
        '--import',
        'tsx',
        program,
        '--workers',
        '2',
        '--kills',
        '8',
      ];
      const place = ['--index', serviceVariable('VRAMKIT_PG_URL'), '--blobs', folder];
      const child = spawn(process.execPath, [...args, ...place], { cwd: root, stdio: 'pipe' });
      let text = '';
      child.stdout.on('data', (part: Buffer) => (text += part.toString()));
      child.stderr.on('data', (part: Buffer) => (text += part.toString()));
      const [code] = (await once(child, 'exit')) as [number];
      console.log(text);
      expect({ code, text }).toMatchObject({ code: 0 });
    });
  }, 300_000);
});
