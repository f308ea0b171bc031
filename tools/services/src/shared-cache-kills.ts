/** Workers of the shared prefix cache that are killed at random, over any store of their blobs. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { seededRandom } from '@vramkit/core/testing';
import { PrefixIndex, SharedBlocks } from '@vramkit/example-shared-prefix-cache';
import type { BlobStore } from '@vramkit/storage';
import type { Pool } from 'pg';
import { describe, expect, it } from 'vitest';
import { bundleWorker, killCount } from './kill-writers.js';
import { blockBytes, blockNames, SHORT_LEASES } from './shared-cache.js';
import { openStore, pgPool, type StoreKind } from './stores.js';

/** Blobs in a store that are not empty. */
export async function countBlobs(store: BlobStore): Promise<number> {
  let count = 0;
  for await (const info of store.list('')) count += info.sizeBytes > 0 ? 1 : 0;
  return count;
}

/** Runs three workers, of which one at a time is killed and replaced. */
async function killWorkers(kind: StoreKind, place: string): Promise<void> {
  const { script, remove } = await bundleWorker('share-blocks');
  const seeds = seededRandom(killCount);
  const start = async (): Promise<ChildProcess> => {
    const args = [script, kind, place, String(seeds.uint32())];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    if (child.stdout !== null) await once(child.stdout, 'data');
    return child;
  };
  const workers = await Promise.all([start(), start(), start()]);
  try {
    for (let kill = 0; kill < killCount; kill += 1) {
      await sleep(seeds.integer(0, 400));
      const [victim] = workers.splice(seeds.integer(0, 2), 1);
      // One that ended by itself read a wrong byte, or failed because another was killed.
      expect(victim?.exitCode).toBeNull();
      victim?.kill('SIGKILL');
      workers.push(await start());
    }
    expect(workers.map(({ exitCode }) => exitCode)).toEqual([null, null, null]);
  } finally {
    for (const worker of workers) worker.kill('SIGKILL');
    await remove();
  }
}

/** Kills workers, then expects right bytes under every name, and nothing once leases are over. */
export async function outliveKilledWorkers(
  kind: StoreKind,
  place: string,
  pool: Pool,
): Promise<void> {
  const index = await PrefixIndex.open(pool, Math.random);
  await pool.query('DELETE FROM vramkit_prefix_block');
  await killWorkers(kind, place);
  const { store, close } = await openStore(kind, place);
  const blocks = new SharedBlocks(store, index, SHORT_LEASES);
  const { storedBlocks } = await index.usage();
  console.log(`${kind}: ${killCount} workers killed, ${storedBlocks} blocks shared`);
  expect(storedBlocks).toBeGreaterThan(0);
  for (const each of blockNames) {
    if ((await blocks.match([each])) === 0) continue;
    expect(Buffer.compare((await blocks.load(each)) ?? Buffer.of(), blockBytes(each))).toBe(0);
  }
  await sleep(SHORT_LEASES.keepMs + 200);
  await blocks.collect();
  await blocks.sweep();
  expect([await index.usage(), await countBlobs(store)]).toMatchObject([{ rows: 0 }, 0]);
  await close();
}

/** Registers the test for blobs in a service, where PostgreSQL holds the index. */
export function describeSharedCache(kind: StoreKind): void {
  const title = `goes on through ${killCount} killed workers, with never a wrong byte`;
  describe(`shared prefix cache, blobs in ${kind}`, () => {
    if (process.env['VRAMKIT_PG_URL'] === undefined) {
      console.log(`shared prefix cache on ${kind}: NOT TESTED, its index is in PostgreSQL: add pg`);
      it.skip(title, () => undefined);
      return;
    }
    it(
      title,
      async () => {
        const pool = await pgPool();
        await outliveKilledWorkers(kind, `shared-${process.pid}`, pool);
        await pool.end();
      },
      900_000,
    );
  });
}
