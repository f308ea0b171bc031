/**
 * What do contract and checksums cost on a disk? Puts with sync, gets, and a checkpoint, each
 * beside the plain calls of Node on the same disk in the same minutes. Goals: puts at 80 % of a
 * loop that writes, syncs, renames; gets at 90 % of a loop that reads, both with checksums on.
 *
 * The plain put writes in chunks of 4 MiB to one file, syncs it, renames it, syncs its folder,
 * because anything less is not there after a crash. Gets come from the page cache, where checksums
 * and copies show most: in one array beside `readFile`; chunks to keep beside a loop that takes a
 * new buffer of 4 MiB for each read, and beside a stream; and lent chunks beside a loop that reads
 * into one buffer; both loops also with the same hash of each chunk, which is what checks cost
 * without a store. The goal stands beside each of them. The plain checkpoint writes one safetensors
 * file the same way, without a hash; ours hashes every byte twice (SHA-256 and XXH3) before it
 * writes.
 *
 * Ceph, where it is installed: ceph-sides.ts. Goals: within 10 % of the best for 64 MiB; 4 KiB gets
 * at 16 in flight no slower than aws-sdk.
 *
 * Parts: `--only files`, `checkpoint`, `s3`, `rados`.
 */
import { randomUUID } from 'node:crypto';
import { mkdtemp, open, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Checkpoints, checksummedStore, posixStore } from '@vramkit/storage';
import { measureRados, measureS3 } from './ceph-sides.js';
import { startCeph, stopCeph } from './ceph-rivals.js';
import type { BenchOptions } from './command-line.js';
import { blobName, placeOf, startGets } from './file-gets.js';
import type { GetSide } from './file-gets.js';
import { measureInTurn } from './measure.js';
import type { Measure } from './measure.js';
import { toResult } from './report.js';
import type { BenchResult } from './report.js';
import { mebibyte, movedPerSecond, sizeName, testData } from './storage-data.js';

/** The question, for the terminal. */
export const question =
  'MiB/s of files: puts with sync, gets and a checkpoint, checksums on, beside plain calls of Node';

/** What can be measured alone. */
export const parts = ['files', 'checkpoint', 's3', 'rados'] as const;

const chunkBytes = 4 * mebibyte;
const figure = { suite: 'storage', driver: 'none', better: 'higher', unit: 'MiB/s' } as const;

/** Ways to get a file, each beside calls of Node that give the same. */
const fileGets: readonly { metric: string; ours: GetSide; peers: readonly GetSide[] }[] = [
  { metric: 'one array', ours: 'whole', peers: ['fs.readFile'] },
  {
    metric: 'chunks kept',
    ours: 'kept',
    peers: ['fs.read, new buffers', 'fs.createReadStream'],
  },
  { metric: 'chunks lent', ours: 'lent', peers: ['fs.read, one buffer'] },
  {
    metric: 'chunks kept, both hash',
    ours: 'kept',
    peers: ['fs.read, new buffers, xxh3'],
  },
  { metric: 'chunks lent, both hash', ours: 'lent', peers: ['fs.read, one buffer, xxh3'] },
];

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

/** Does work so many times; a small blob alone is too short to time. */
function times(count: number, work: (index: number) => Promise<unknown>): () => Promise<void> {
  return async () => {
    for (let i = 0; i < count; i += 1) await work(i);
  };
}

async function measureFiles(folder: string, { quick, log }: BenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  const place = placeOf(folder);
  const store = checksummedStore(await posixStore({ folder: place.store }));
  const sizes = [
    { sizeBytes: (quick ? 16 : 64) * mebibyte, count: 1 },
    { sizeBytes: mebibyte, count: quick ? 4 : 16 },
    { sizeBytes: 4096, count: quick ? 16 : 64 },
  ];
  for (const size of sizes) {
    const { sizeBytes, count } = size;
    const data = testData(sizeBytes);
    log(`putting ${sizeName(sizeBytes)}`);
    const rate = (work: (index: number) => Promise<unknown>): Measure =>
      movedPerSecond(sizeBytes * count, times(count, work));
    const put = await measureInTurn(
      {
        ours: rate((i) => store.put(blobName(size, i), data)),
        peers: { 'node:fs': rate((i) => plainPut(place.plain, blobName(size, i), data)) },
      },
      { runs: 7 },
    );
    results.push(toResult({ ...figure, case: sizeName(sizeBytes), metric: 'put, synced' }, put));
  }
  for (const { metric, ours, peers } of fileGets) {
    const subject = startGets(ours, folder);
    const rivals = peers.map((name) => ({ name, ...startGets(name, folder) }));
    try {
      for (const size of sizes) {
        log(`getting ${sizeName(size.sizeBytes)}, ${metric}`);
        const sides = {
          ours: subject.measure(size),
          peers: Object.fromEntries(rivals.map(({ name, measure }) => [name, measure(size)])),
        };
        // A round takes milliseconds: more of them, and more before them for the compiler.
        const get = await measureInTurn(sides, { runs: 101, warmUps: 30 });
        const name = { ...figure, case: sizeName(size.sizeBytes) };
        results.push(toResult({ ...name, metric: `get, cached, ${metric}` }, get));
      }
    } finally {
      await Promise.all([subject, ...rivals].map((side) => side.dispose()));
    }
  }
  return results;
}

async function measureCheckpoint(
  folder: string,
  { quick, log }: BenchOptions,
): Promise<BenchResult[]> {
  const bytes = testData((quick ? 64 : 1024) * mebibyte);
  log(`saving a checkpoint of ${sizeName(bytes.length)}`);
  const tensors = Array.from({ length: 16 }, (_, index) => ({
    name: `tensor.${index}`,
    dtype: 'U8',
    shape: [bytes.length / 16],
    bytes: bytes.subarray((index * bytes.length) / 16, ((index + 1) * bytes.length) / 16),
  }));
  let step = 0;
  const store = await posixStore({ folder: join(folder, 'checkpoints') });
  const checkpoints = new Checkpoints(store, { shardBytes: bytes.length / 4 });
  const save = movedPerSecond(bytes.length, () =>
    // A new name each time: a checkpoint that is there is not written again.
    checkpoints.save(`step-${String((step += 1)).padStart(4, '0')}`, tensors),
  );
  const saved = await measureInTurn({
    ours: async () => {
      const rate = await save();
      await checkpoints.prune({ keep: 1 });
      return rate;
    },
    peers: {
      'node:fs': movedPerSecond(bytes.length, () => plainPut(folder, 'checkpoint', bytes)),
    },
  });
  const name = { ...figure, case: sizeName(bytes.length), metric: 'checkpoint, synced' };
  return [toResult(name, saved)];
}

/** Measures. */
export async function run(options: BenchOptions): Promise<readonly BenchResult[]> {
  const { only, log } = options;
  const wants = (part: (typeof parts)[number]): boolean => only === undefined || only === part;
  const folder = await mkdtemp(join(tmpdir(), 'vramkit-bench-'));
  const results: BenchResult[] = [];
  try {
    if (wants('files')) results.push(...(await measureFiles(folder, options)));
    if (wants('checkpoint')) results.push(...(await measureCheckpoint(folder, options)));
    if (!wants('s3') && !wants('rados')) return results;
    const ceph = join(folder, 'ceph');
    try {
      const place = startCeph(ceph);
      log('putting to and getting from Ceph');
      if (wants('s3')) results.push(...(await measureS3(place, options)));
      if (wants('rados')) results.push(...(await measureRados(place, options)));
    } catch (error) {
      log(`Ceph: not measured, ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      stopCeph(ceph);
    }
    return results;
  } finally {
    await rm(folder, { recursive: true });
  }
}
