/**
 * What do contract and checksums cost on a disk? Puts with sync, gets, and a checkpoint, each
 * beside the plain calls of Node on the same disk in the same minutes. Goals: puts at 80 % of a
 * loop that writes, syncs, renames; gets at 90 % of a loop that reads, both with checksums on.
 *
 * The plain loops move chunks of 4 MiB. The plain put writes one file, syncs it, renames it, syncs
 * its folder, because anything less is not there after a crash. Gets come from the page cache,
 * where checksums and copies show most. The plain checkpoint writes one safetensors file the same
 * way, without a hash; ours hashes every byte twice (SHA-256 and xxh64) before it writes.
 *
 * Ceph, where it is installed: `s3Store` and `radosStore` beside plain loops of aws-sdk, of OpenDAL
 * and of librados over FFI, on one cluster in turn. Goals: within 10 % of the best for 64 MiB;
 * 4 KiB gets at 16 in flight no slower than aws-sdk.
 */
import { randomUUID } from 'node:crypto';
import { mkdtemp, open, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Checkpoints, checksummedStore, posixStore, readBlob } from '@vramkit/storage';
import type { BlobStore } from '@vramkit/storage';
import { radosStore } from '@vramkit/storage/rados';
import { s3Store } from '@vramkit/storage/s3';
import {
  awsClient,
  koffiModule,
  plainAws,
  plainOpenDal,
  plainRados,
  startCeph,
  stopCeph,
  type CephPlace,
  type PlainClient,
} from './ceph-rivals.js';
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

/** Our store as a plain client. */
function asPlain(store: BlobStore): PlainClient {
  return {
    put: (key, bytes) => store.put(key, bytes),
    get: (key) => readBlob(store, key, { parallelGets: 4 }),
  };
}

const smallBytes = 4096;
const inFlight = 16;

/** Gets of small blobs per second, so many in flight; a get is a whole blob whose size is known. */
function smallGets(get: (name: string) => Promise<unknown>, count: number): Measure {
  return async () => {
    const begin = performance.now();
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next < count) await get(`small/${(next += 1) % 64}`);
    };
    await Promise.all(Array.from({ length: inFlight }, lane));
    return count / ((performance.now() - begin) / 1000);
  };
}

/** One of our stores on Ceph beside the rivals, large and small. */
async function runOnCeph(
  driver: string,
  store: BlobStore,
  rivals: Readonly<Record<string, PlainClient>>,
  quick: boolean,
): Promise<BenchResult[]> {
  const data = testData((quick ? 16 : 64) * mebibyte);
  const name = { suite, driver, better: 'higher', case: `${data.length / mebibyte} MiB` } as const;
  const ours = asPlain(store);
  const each = (work: (client: PlainClient) => Measure) =>
    measureInTurn({
      ours: work(ours),
      peers: Object.fromEntries(Object.entries(rivals).map(([peer, c]) => [peer, work(c)])),
    });
  const put = await each((client) => rate(data.length, () => client.put('large', data)));
  const get = await each((client) => rate(data.length, () => client.get('large')));
  for (const client of [ours, ...Object.values(rivals)]) {
    for (let i = 0; i < 64; i += 1) {
      await client.put(`small/${i}`, data.subarray(i * smallBytes, (i + 1) * smallBytes));
    }
  }
  const count = quick ? 200 : 1000;
  const small = await measureInTurn({
    ours: smallGets((key) => readBlob(store, key, { lengthBytes: smallBytes }), count),
    peers: Object.fromEntries(
      Object.entries(rivals).map(([peer, client]) => [peer, smallGets(client.get, count)]),
    ),
  });
  const gets = { ...name, case: '4 KiB', metric: `gets, ${inFlight} in flight`, unit: '1/s' };
  return [
    toResult({ ...name, metric: 'put', unit: 'MiB/s' }, put),
    toResult({ ...name, metric: 'get', unit: 'MiB/s' }, get),
    toResult(gets, small),
  ];
}

/** Both stores on a cluster of their own. */
async function runCeph(place: CephPlace, quick: boolean): Promise<BenchResult[]> {
  const bucket = 'bench';
  const { sdk, s3 } = await awsClient(place);
  await s3.send(new sdk.CreateBucketCommand({ Bucket: bucket }) as never);
  const store = await s3Store({ sdk, client: s3, bucket, prefix: 'ours/' });
  const koffi = await koffiModule();
  const { CEPH_CONF: configFile = '', CEPH_RADOS_POOL: pool = '' } = place;
  await using rados = await radosStore({ koffi, configFile, pool });
  const results = [
    ...(await runOnCeph(
      's3',
      store,
      { 'aws-sdk': plainAws(sdk, s3, bucket), opendal: await plainOpenDal(place, bucket) },
      quick,
    )),
    ...(await runOnCeph('rados', rados, { 'rados FFI': await plainRados(place, 'plain') }, quick)),
  ];
  s3.destroy();
  return results;
}

/** Measures. */
export async function run({ quick, log }: BenchOptions): Promise<readonly BenchResult[]> {
  const folder = await mkdtemp(join(tmpdir(), 'vramkit-bench-'));
  try {
    const results = await runFiles(folder, { quick, log });
    const ceph = join(folder, 'ceph');
    try {
      const place = startCeph(ceph);
      log(`putting to and getting from Ceph`);
      return [...results, ...(await runCeph(place, quick))];
    } catch (error) {
      log(`Ceph: not measured, ${error instanceof Error ? error.message : String(error)}`);
      return results;
    } finally {
      stopCeph(ceph);
    }
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function runFiles(
  folder: string,
  { quick, log }: BenchOptions,
): Promise<readonly BenchResult[]> {
  const results: BenchResult[] = [];
  const name = { suite, unit: 'MiB/s', driver: 'none', better: 'higher' } as const;
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
}
