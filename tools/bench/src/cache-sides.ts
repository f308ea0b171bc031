/**
 * The sides of the replacement benchmark: whole caches that map a key to a value and read a trace.
 *
 * A read of a key that is absent puts it in. Ours are a policy of `@vramkit/eviction` beside values
 * that the cache keeps: in an array by the slot of a shared index, in an array by a dense id, or,
 * for lru, in a `Map` apart from the policy, which costs a second look-up. The rival keeps values
 * itself.
 *
 * As a process of its own this file runs one side, named by its argument, on each trace that it is
 * sent: a program has one cache, and call sites that have met seven policies are slower than any of
 * them.
 */
import {
  anyIds,
  arc,
  denseIds,
  gdsf,
  lfu,
  lru,
  s3Fifo,
  sieve,
  slru,
  type Replacement,
  type ReplacementOptions,
} from '@vramkit/eviction';
import { LRUCache } from 'lru-cache';
import type { CacheTrace } from './cache-traces.js';

/** What a side is sent. */
export interface CacheTask {
  readonly trace: CacheTrace;
  /** Copies that the cache may hold. */
  readonly capacity: number;
}

/** What a side answers. */
export interface CacheReading {
  /** Reads that found their key. */
  readonly hits: number;
  /** CPU time of the process during the reads, all threads: waiting for a core does not count. */
  readonly cpuMicroseconds: number;
}

type Reader = (task: CacheTask) => number;
type Factory = (options: ReplacementOptions<number>) => Replacement<number>;

const SIZE = { sizeBytes: 1, reloadCost: 1 };
const always = (): boolean => true;

function readBySlot(make: Factory, { trace, capacity }: CacheTask): number {
  const ids = anyIds<number>();
  const policy = make({ ids });
  const values: (number | undefined)[] = [];
  let [hits, held] = [0, 0];
  for (const key of trace.keys) {
    if (values[ids.find(key)] !== undefined) {
      policy.touched(key);
      hits++;
      continue;
    }
    if (held === capacity) {
      const victim = policy.chooseVictim(always) ?? 0;
      values[ids.find(victim)] = undefined;
      policy.removed(victim, 'capacity');
      held--;
    }
    policy.inserted(key, SIZE);
    values[ids.find(key)] = key;
    held++;
  }
  return hits;
}

function readByDenseId(make: Factory, { trace, capacity }: CacheTask): number {
  const policy = make({ ids: denseIds(trace.keyCount) });
  const values = new Int32Array(trace.keyCount).fill(-1);
  let [hits, held] = [0, 0];
  for (const key of trace.keys) {
    if (values[key] !== -1) {
      policy.touched(key);
      hits++;
      continue;
    }
    if (held === capacity) {
      const victim = policy.chooseVictim(always) ?? 0;
      policy.removed(victim, 'capacity');
      values[victim] = -1;
      held--;
    }
    policy.inserted(key, SIZE);
    values[key] = key;
    held++;
  }
  return hits;
}

function readByMap(make: Factory, { trace, capacity }: CacheTask): number {
  const policy = make({});
  const values = new Map<number, number>();
  let hits = 0;
  for (const key of trace.keys) {
    if (values.get(key) !== undefined) {
      policy.touched(key);
      hits++;
      continue;
    }
    if (values.size === capacity) {
      const victim = policy.chooseVictim(always) ?? 0;
      policy.removed(victim, 'capacity');
      values.delete(victim);
    }
    policy.inserted(key, SIZE);
    values.set(key, key);
  }
  return hits;
}

function readByRival({ trace, capacity }: CacheTask): number {
  const cache = new LRUCache<number, number>({ max: capacity });
  let hits = 0;
  for (const key of trace.keys) {
    if (cache.get(key) !== undefined) hits++;
    else cache.set(key, key);
  }
  return hits;
}

/** The npm package that ours are compared with. */
export const RIVAL = 'lru-cache';

const POLICIES: Record<string, Factory> = { lru, lfu, slru, sieve, s3Fifo, arc, gdsf };

/** Every side by name. */
export const CACHE_SIDES: Readonly<Record<string, Reader>> = {
  [RIVAL]: readByRival,
  ...Object.fromEntries(
    Object.entries(POLICIES).flatMap(([name, make]): [string, Reader][] => [
      [name, (task) => readBySlot(make, task)],
      [`${name}, dense ids`, (task) => readByDenseId(make, task)],
    ]),
  ),
  'lru, values in a Map': (task) => readByMap(lru, task),
};

if (process.send !== undefined) {
  const name = process.argv[2] ?? '';
  const read = CACHE_SIDES[name];
  if (read === undefined) throw new RangeError(`there is no side '${name}'`);
  process.on('message', (task: CacheTask) => {
    const start = process.cpuUsage();
    const hits = read(task);
    const { user, system } = process.cpuUsage(start);
    process.send?.({ hits, cpuMicroseconds: user + system } satisfies CacheReading);
  });
}
