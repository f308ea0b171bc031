/**
 * What do contract and checksums cost on a disk? Puts with sync, gets, and a checkpoint, each
 * beside the plain calls of Node on the same disk in the same minutes. Goals: puts at 80 % of a
 * loop that writes, syncs, renames; gets at 90 % of a loop that reads, both with checksums on.
 *
 * The plain loops move chunks of 4 MiB. The plain put writes one file, syncs it, renames it, syncs
 * its folder, because anything less is not there after a crash. Gets come from the page cache,
 * where checksums and copies show most. The plain checkpoint writes one safetensors file the same
 * way, without a hash; ours hashes every byte twice (SHA-256 and xxh64) before it writes.
 */
import { randomUUID } from 'node:crypto';
import { mkdtemp, open, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Checkpoints, checksummedStore, posixStore } from '@vramkit/storage';
import type { BlobStore } from '@vramkit/storage';
import type { BenchOptions } from './command-line.js';
import { measureInTurn } from './measure.js';
import type { Measure } from './measure.js';
import { toResult } from './report.js';
import type { BenchResult } from './report.js';

/** The question, for the terminal. */
export const question =
  'MiB/s of files: puts with sync, gets and a checkpoint, checksums on, beside plain calls of Node';

const suite = 'storage';
const mebibyte = 2 ** 20;
const chunkBytes = 4 * mebibyte;

function testData(sizeBytes: number): Uint8Array {
  const words = new Uint32Array(sizeBytes / 4);
  for (let i = 0, state = 1; i < words.length; i += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[i] = state;
  }
  return new Uint8Array(words.buffer);
}

/** Times work that moves so many bytes. */
const rate =
  (sizeBytes: number, work: () => Promise<unknown>): Measure =>
  async () => {
    const begin = performance.now();
    await work();
    return sizeBytes / mebibyte / ((performance.now() - begin) / 1000);
  };

async function plainPut(folder: string, name: string, data: Uint8Array): Promise<void> {
  const temporary = join(folder, randomUUID());
  const file = await open(temporary, 'wx');
  for (let at = 0; at < data.length; at += chunkBytes) {
    await file.write(data, at, Math.min(chunkBytes, data.length - at));
  }
  await file.sync();
  await file.close();
  await rename(temporary, join(folder, name));
  const parent = await open(folder, 'r');
  await parent.sync();
  await parent.close();
}

async function plainGet(path: string): Promise<number> {
  const file = await open(path, 'r');
  let total = 0;
  for (;;) {
    const { bytesRead } = await file.read(Buffer.allocUnsafeSlow(chunkBytes), 0, chunkBytes);
    total += bytesRead;
    if (bytesRead === 0) break;
  }
  await file.close();
  return total;
}

async function drain(store: BlobStore, key: string): Promise<number> {
  let total = 0;
  for await (const chunk of store.get(key)) total += chunk.length;
  return total;
}

/** Measures. */
export async function run({ quick, log }: BenchOptions): Promise<readonly BenchResult[]> {
  const folder = await mkdtemp(join(tmpdir(), 'vramkit-bench-'));
  const results: BenchResult[] = [];
  const name = { suite, unit: 'MiB/s', driver: 'none', better: 'higher' } as const;
  try {
    const plain = await posixStore({ folder: join(folder, 'store') });
    const store = checksummedStore(plain);
    const data = testData((quick ? 16 : 64) * mebibyte);
    const size = `${data.length / mebibyte} MiB`;
    log(`putting and getting ${size}`);
    const put = await measureInTurn({
      ours: rate(data.length, () => store.put('ours', data)),
      peers: { 'node:fs': rate(data.length, () => plainPut(folder, 'plain', data)) },
    });
    results.push(toResult({ ...name, case: size, metric: 'put, synced' }, put));
    const get = await measureInTurn({
      ours: rate(data.length, () => drain(store, 'ours')),
      peers: { 'node:fs': rate(data.length, () => plainGet(join(folder, 'plain'))) },
    });
    results.push(toResult({ ...name, case: size, metric: 'get, cached pages' }, get));
    const bytes = testData((quick ? 64 : 1024) * mebibyte);
    const total = `${bytes.length / mebibyte} MiB`;
    log(`saving a checkpoint of ${total}`);
    const tensors = Array.from({ length: 16 }, (_, index) => ({
      name: `tensor.${index}`,
      dtype: 'U8',
      shape: [bytes.length / 16],
      bytes: bytes.subarray((index * bytes.length) / 16, ((index + 1) * bytes.length) / 16),
    }));
    let step = 0;
    const checkpoints = new Checkpoints(plain, { shardBytes: bytes.length / 4 });
    const saveNext = rate(bytes.length, () =>
      // A new name each time: a checkpoint that is there is not written again.
      checkpoints.save(`step-${String((step += 1)).padStart(4, '0')}`, tensors),
    );
    const save = await measureInTurn({
      ours: async () => {
        const figure = await saveNext();
        await checkpoints.prune({ keep: 1 });
        return figure;
      },
      peers: { 'node:fs': rate(bytes.length, () => plainPut(folder, 'checkpoint', bytes)) },
    });
    results.push(toResult({ ...name, case: total, metric: 'checkpoint, synced' }, save));
    return results;
  } finally {
    await rm(folder, { recursive: true });
  }
}
