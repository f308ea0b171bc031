/**
 * What the host can do by itself: a copy in memory, Adam by number of threads, and storage. Plans
 * of optimizer state rest on the first two, placements for inference on storage too.
 *
 * Storage is measured through the store that will be used, whole blobs at four sizes. A read finds
 * what the write before it left in the caches of the system and of the store: an upper bound.
 */
import { throwIfAborted } from '@vramkit/core';
import type { BlobStore } from '@vramkit/storage';
import { ADAM_STEP_NAMES, adamStep, completeAdam } from './adam/adam.js';
import { fitRate, type CalibratedRate, type RateSample } from './fit-rate.js';
import { HostPool } from './host-pool.js';

/** Rates of the host. */
export interface HostRates {
  /** A copy between two arrays by one thread; bytes are counted once. */
  readonly copy: CalibratedRate;
  /** Adam, parameters, by number of threads from 1 on. */
  readonly adamByThreads: readonly CalibratedRate[];
  /** Bytes into storage, and out of it; only where a store was given. */
  readonly storageWrite?: CalibratedRate;
  readonly storageRead?: CalibratedRate;
}

/** Options of {@link calibrateHost}. */
export interface CalibrateHostOptions {
  /** Most threads of Adam. Default: 2. */
  readonly threads?: number;
  /** Parameters of the largest sample of Adam; copies and blobs are of 16 bytes each. */
  readonly largest: number;
  /** Runs at each size. No default. */
  readonly runs: number;
  /** Store to measure; blobs under `calibration/` are written and deleted. Default: none. */
  readonly store?: Pick<BlobStore, 'put' | 'get' | 'delete'>;
  /** Checked before each run. Default: never stops. */
  readonly signal?: AbortSignal;
  /** Clock, milliseconds. No default. */
  readonly now: () => number;
}

const SHARES = [1 / 8, 1 / 4, 1 / 2, 1];

/** Measures the host. @throws VramError `aborted`, and what the store throws. */
export async function calibrateHost(options: CalibrateHostOptions): Promise<HostRates> {
  const { largest, threads = 2, store } = options;
  const measure = async (
    perParam: number,
    prepare: (count: number) => () => Promise<void> | void,
  ): Promise<CalibratedRate> => {
    const samples: RateSample[] = [];
    for (const share of SHARES) {
      const count = Math.ceil((largest * share) / 1024) * 1024;
      const work = prepare(count);
      const ms: number[] = [];
      // The first run touches the memory.
      for (let run = -1; run < options.runs; run++) {
        throwIfAborted(options.signal);
        const start = options.now();
        await work();
        if (run >= 0) ms.push(options.now() - start);
      }
      samples.push({ work: perParam * count, ms });
    }
    return fitRate(samples);
  };
  const copy = await measure(16, (count) => {
    const source = new Uint8Array(16 * count).fill(1);
    const target = new Uint8Array(16 * count);
    return () => target.set(source);
  });
  const adamByThreads: CalibratedRate[] = [];
  for (let count = 1; count <= threads; count++) adamByThreads.push(await adam(count));
  if (store === undefined) return { copy, adamByThreads };
  const key = (count: number): string => `calibration/${count}`;
  const blob = new Uint8Array(16 * largest + 16 * 1024).map((_, i) => i * 31);
  const storageWrite = await measure(16, (count) => async () => {
    await store.put(key(count), blob.subarray(0, 16 * count));
  });
  const storageRead = await measure(16, (count) => async () => {
    for await (const chunk of store.get(key(count))) if (chunk.length === 0) break;
  });
  for (const share of SHARES) await store.delete(key(Math.ceil((largest * share) / 1024) * 1024));
  return { copy, adamByThreads, storageWrite, storageRead };

  async function adam(poolThreads: number): Promise<CalibratedRate> {
    const bytes = 16 * Math.ceil(largest / 1024) * 1024 + 1024;
    const pages = Math.ceil(bytes / 65_536);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const pool = new HostPool(memory, { threads: poolThreads });
    const step = adamStep(completeAdam({}), 1);
    try {
      return await measure(1, (count) => {
        const [p = 0, m = 0, v = 0, g = 0] = [0, 1, 2, 3].map((array) => 1024 + 4 * count * array);
        const addresses = [p, m, v, g, p, m, v];
        const job = { kernel: 'adam', addresses, strides: addresses.map(() => 4), count } as const;
        return () => pool.run({ ...job, scalars: ADAM_STEP_NAMES.map((name) => step[name]) });
      });
    } finally {
      await pool.dispose();
    }
  }
}
