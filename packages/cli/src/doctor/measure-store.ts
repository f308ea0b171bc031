/**
 * Measures a blob store: latency and throughput of puts and gets by size, gets in flight, listing.
 *
 * Blobs are random bytes under a prefix of their own, and are deleted whatever happens: where a
 * call fails, and where the signal ends the measurement. A size is repeated until it has had its
 * share of time, at least {@link LEAST_RUNS} times, so a slow store takes no longer than a fast
 * one; every get is compared with what was put.
 */
import { randomBytes, randomUUID } from 'node:crypto';
import { throwIfAborted, VramError } from '@vramkit/core';
import { readBlob, type BlobStore } from '@vramkit/storage';

/** One direction at one size. */
export interface StoreFigure {
  /** Median milliseconds of one call. */
  readonly medianMs: number;
  /** The slowest. */
  readonly maxMs: number;
  /** MiB/s of all calls, one after the other. */
  readonly mibPerSecond: number;
  readonly runs: number;
}

/** Puts and gets of one size. */
export interface StoreSizeReport {
  readonly sizeBytes: number;
  readonly put: StoreFigure;
  readonly get: StoreFigure;
}

/** What was measured. */
export interface StoreMeasurements {
  readonly sizes: readonly StoreSizeReport[];
  /** Gets of the smallest size per second, 16 in flight. */
  readonly getsPerSecond: number;
  /** Blobs listed per second. */
  readonly listedPerSecond: number;
}

const SIZES = [4096, 2 ** 18, 2 ** 22, 2 ** 26];
const SHARE_MS = 1500;
const LEAST_RUNS = 3;
const MOST_RUNS = 64;
const IN_FLIGHT = 16;

/** Runs until the share of time is used up; milliseconds of each run. */
async function timed(
  signal: AbortSignal | undefined,
  work: (run: number) => Promise<unknown>,
): Promise<number[]> {
  const durations: number[] = [];
  const end = performance.now() + SHARE_MS;
  while (
    durations.length < LEAST_RUNS ||
    (durations.length < MOST_RUNS && performance.now() < end)
  ) {
    throwIfAborted(signal);
    const begin = performance.now();
    await work(durations.length);
    durations.push(performance.now() - begin);
  }
  return durations;
}

function figure(sizeBytes: number, durations: readonly number[]): StoreFigure {
  const sorted = [...durations].sort((a, b) => a - b);
  const totalMs = sorted.reduce((sum, each) => sum + each, 0);
  return {
    medianMs: sorted[sorted.length >> 1] ?? NaN,
    maxMs: sorted.at(-1) ?? NaN,
    mibPerSecond: (sizeBytes * sorted.length) / 2 ** 20 / (totalMs / 1000),
    runs: sorted.length,
  };
}

/**
 * Measures; `progress` is told what comes next.
 * @throws VramError what the store throws; `aborted`; `corrupt-data` where a get gives other bytes;
 * `unavailable` where some blobs could not be deleted.
 */
export async function measureStore(
  store: BlobStore,
  progress: (what: string) => void,
  signal?: AbortSignal,
): Promise<StoreMeasurements> {
  const prefix = `vramkit-doctor/${randomUUID()}/`;
  const keys = new Set<string>();
  const clean = (): Promise<unknown[]> => {
    progress('cleaning up');
    return deleteAll(store, keys);
  };
  let measurements: StoreMeasurements;
  try {
    measurements = await measure(store, { prefix, keys, progress, signal });
  } catch (error) {
    await clean(); // this error is the one to report
    throw error;
  }
  const failures = await clean();
  if (failures.length > 0) {
    const message = `${failures.length} blobs of the measurement stay below '${prefix}'`;
    const context = { store: store.name, prefix };
    throw new VramError('unavailable', message, { context, cause: failures[0] });
  }
  return measurements;
}

/** Deletes what it can; what the other deletes failed with. */
async function deleteAll(store: BlobStore, keys: Iterable<string>): Promise<unknown[]> {
  const failures: unknown[] = [];
  for (const key of keys) {
    await store.delete(key).catch((error: unknown) => failures.push(error));
  }
  return failures;
}

interface Measurement {
  readonly prefix: string;
  /** Receives the key of every blob before it is put. */
  readonly keys: Set<string>;
  readonly progress: (what: string) => void;
  readonly signal: AbortSignal | undefined;
}

async function measure(
  store: BlobStore,
  { prefix, keys, progress, signal }: Measurement,
): Promise<StoreMeasurements> {
  const keyOf = (sizeBytes: number, run: number): string => `${prefix}${sizeBytes}/${run}`;
  const get = async (key: string, expected: Buffer): Promise<void> => {
    const bytes = await readBlob(store, key, { lengthBytes: expected.length, signal });
    if (expected.equals(bytes)) return;
    throw new VramError('corrupt-data', `${store.name} gave other bytes than were put`);
  };
  const sizes: StoreSizeReport[] = [];
  const [smallest = 4096] = SIZES;
  const contents = new Map<number, Buffer>();
  for (const sizeBytes of SIZES.filter((size) => size <= store.capabilities.maxBlobBytes)) {
    const bytes = randomBytes(sizeBytes);
    contents.set(sizeBytes, bytes);
    progress(`puts of ${sizeBytes} B`);
    const puts = await timed(signal, (run) => {
      keys.add(keyOf(sizeBytes, run));
      return store.put(keyOf(sizeBytes, run), bytes, { signal });
    });
    progress(`gets of ${sizeBytes} B`);
    const gets = await timed(signal, (run) => get(keyOf(sizeBytes, run % puts.length), bytes));
    sizes.push({ sizeBytes, put: figure(sizeBytes, puts), get: figure(sizeBytes, gets) });
  }
  progress(`${IN_FLIGHT} gets in flight`);
  const bytes = contents.get(smallest) ?? Buffer.alloc(0);
  const stored = sizes[0]?.put.runs ?? 1;
  let count = 0;
  const begin = performance.now();
  const worker = async (): Promise<void> => {
    while (performance.now() - begin < SHARE_MS) {
      await get(keyOf(smallest, (count += 1) % stored), bytes);
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, worker));
  const getsPerSecond = count / ((performance.now() - begin) / 1000);
  progress('listing');
  let listed = 0;
  const lists = await timed(signal, async () => {
    for await (const info of store.list(prefix, { signal })) listed += info.sizeBytes >= 0 ? 1 : 0;
  });
  const listMs = lists.reduce((sum, each) => sum + each, 0);
  return { sizes, getsPerSecond, listedPerSecond: listed / (listMs / 1000) };
}
