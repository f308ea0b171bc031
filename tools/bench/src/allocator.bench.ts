/**
 * What does a block cost? Churn of a plain pool, churn of a pool with a prefix cache, prompts that
 * nobody has seen, prompts that are cached, and decoding, at pools of 10 thousand to 10 million
 * blocks. Goals per block: churn 24 ns, cached prompts 150 ns with hashing, new prompts 350 ns;
 * per decoded token of 256 sequences 400 ns; and the same within two times at every size.
 *
 * Rivals do less: lru-cache and a Map hold keys that are hashed already, count no references and
 * compare no tokens. A cached prompt costs them a `get` a block, a new one a `set` that pushes the
 * oldest out. As a free list a Map of ids in order of insertion is the plainest LRU there is. They
 * stop at a million blocks, which is near the most that a Map holds well.
 *
 * Each case has a process of its own, as it has in a runtime: an engine specialises code for what
 * it has seen, and a process that has churned plain pools runs managers half as fast.
 *
 * What larger pools cost more is cache misses: a pool of 10 million blocks is 160 MB of records and
 * a gigabyte of tokens and nodes, and each block is touched when it is taken and again when it is
 * freed.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { BlockPool, KvCacheManager, PrefixCache, SlotMapping } from '@vramkit/block-allocator';
import { LRUCache } from 'lru-cache';
import {
  blockSize,
  churn,
  mostBlocks,
  Prompts,
  timePer,
  xorshift32,
} from './allocator-workload.js';
import type { BenchOptions } from './command-line.js';
import { measureInTurn } from './measure.js';
import type { Measure, Measured } from './measure.js';
import { toResult } from './report.js';
import type { BenchResult } from './report.js';

/** The question, for the terminal. */
export const question =
  'Nanoseconds per block: churn, cached and new prompts, decoding; beside lru-cache and a Map';

const suite = 'allocator';
const decodedSequences = 256;

/** Wraps work that returns units as a figure in ns per unit. */
const perUnit =
  (work: () => number): Measure =>
  () =>
    Promise.resolve(timePer(work));

function churnPool(pool: BlockPool): (blocks: number) => number {
  const spares: Uint32Array[] = [];
  const lengths = new Map<Uint32Array, number>();
  return churn<Uint32Array>({
    allocate(count) {
      if (count > pool.freeCount) return undefined;
      const ids = spares.pop() ?? new Uint32Array(mostBlocks);
      lengths.set(ids, count);
      return pool.tryAllocate(count, ids);
    },
    free(ids) {
      pool.free(ids, 0, lengths.get(ids) ?? 0);
      spares.push(ids);
    },
  });
}

/** A free list in LRU order as a Map's order of insertion, with no counts. */
function churnMap(blockCount: number): (blocks: number) => number {
  const free = new Map<number, number>();
  for (let id = 1; id < blockCount; id++) free.set(id, 0);
  return churn<number[]>({
    allocate(count) {
      if (count > free.size) return undefined;
      const ids: number[] = [];
      for (const id of free.keys()) {
        if (ids.length === count) break;
        ids.push(id);
      }
      for (const id of ids) free.delete(id);
      return ids;
    },
    free(ids) {
      for (let index = ids.length - 1; index >= 0; index--) free.set(ids[index] ?? 0, 0);
    },
  });
}

function manage(blockCount: number): KvCacheManager {
  return new KvCacheManager(new BlockPool({ blockCount, blockSize }));
}

/** New prompts: each is hashed, missed, given blocks that push others out, and published. */
function newPrompts(manager: KvCacheManager): (blocks: number) => number {
  const prompts = new Prompts();
  const step = new SlotMapping();
  let name = 0;
  return churn<number>({
    allocate(count) {
      step.clear();
      const sequence = manager.tryAllocate(prompts.get(name, count - 1), step);
      if (sequence !== undefined) name++;
      return sequence;
    },
    free: (sequence) => manager.free(sequence),
  });
}

/** Cached prompts over half of the pool, asked for in random order, 64 at a time. */
function cachedPrompts(blockCount: number): (blocks: number) => number {
  const manager = manage(blockCount);
  const prompts = new Prompts();
  const step = new SlotMapping();
  const random = xorshift32();
  const lengths: number[] = [];
  for (let blocks = 0; blocks < blockCount / 2;) {
    const count = 1 + (random() % Math.min(mostBlocks, blockCount >> 5));
    step.clear();
    const sequence = manager.tryAllocate(prompts.get(lengths.length, count), step);
    if (sequence === undefined) throw new Error('the pool is too small');
    manager.free(sequence);
    lengths.push(count);
    blocks += count + 1;
  }
  const live: number[] = [];
  return (blocks) => {
    let done = 0;
    while (done < blocks) {
      const name = random() % lengths.length;
      const count = lengths[name] ?? 0;
      step.clear();
      const sequence = manager.tryAllocate(prompts.get(name, count), step);
      if (sequence === undefined || manager.hitTokens(sequence) !== count * blockSize) {
        throw new Error(`prompt ${name} was not cached`);
      }
      live.push(sequence);
      if (live.length > 16) manager.free(live.shift() ?? 0);
      done += count;
    }
    return done;
  };
}

/** Appends a token to each of 256 sequences a step; longer than 4096 tokens they start anew. */
function decode(blockCount: number): (tokens: number) => number {
  const manager = manage(blockCount);
  const prompts = new Prompts();
  const step = new SlotMapping();
  const most = Math.min(4096, Math.floor(((blockCount - 1) / decodedSequences - 1) * blockSize));
  const start = (name: number): number => {
    const sequence = manager.tryAllocate(prompts.get(name, 1), step);
    if (sequence === undefined) throw new Error('the pool is too small');
    return sequence;
  };
  const sequences = Array.from({ length: decodedSequences }, (_, name) => start(name));
  const random = xorshift32();
  const tokens = new Uint32Array(decodedSequences);
  return (count) => {
    let done = 0;
    while (done < count) {
      step.clear();
      for (let index = 0; index < decodedSequences; index++) tokens[index] = random() % 128_000;
      for (let index = 0; index < decodedSequences; index++) {
        const sequence = sequences[index] ?? 0;
        if (!manager.tryAppend(sequence, tokens, step, index, index + 1)) throw new Error('full');
      }
      done += decodedSequences;
      if (manager.table(sequences[0] ?? 0).tokenCount < most) continue;
      for (let index = 0; index < decodedSequences; index++) {
        manager.free(sequences[index] ?? 0);
        sequences[index] = start(done + index);
      }
    }
    return done;
  };
}

/** A `set` of an unknown key in a full cache, once a block. */
function setInLru(blockCount: number): (blocks: number) => number {
  const cache = new LRUCache<number, number>({ max: blockCount });
  let key = 0;
  return (blocks) => {
    for (let block = 0; block < blocks; block++) cache.set(key++, block);
    return blocks;
  };
}

function setInMap(blockCount: number): (blocks: number) => number {
  const map = new Map<number, number>();
  let key = 0;
  return (blocks) => {
    for (let block = 0; block < blocks; block++) {
      map.set(key++, block);
      if (map.size > blockCount) map.delete(key - blockCount - 1);
    }
    return blocks;
  };
}

/** A `get` of a known key, once a block: prompts in random order, their blocks in a row. */
function getFrom(
  blockCount: number,
  cache: { get(key: number): number | undefined; set(key: number, value: number): unknown },
): (blocks: number) => number {
  const random = xorshift32();
  for (let key = 0; key < blockCount / 2; key++) cache.set(key, key);
  return (blocks) => {
    let done = 0;
    while (done < blocks) {
      const count = 1 + (random() % mostBlocks);
      const first = random() % Math.max(1, (blockCount >> 1) - count);
      for (let block = 0; block < count; block++) {
        if (cache.get(first + block) === undefined) throw new Error('a key is missing');
      }
      done += count;
    }
    return done;
  };
}

interface Case {
  readonly name: string;
  readonly metric: string;
  readonly unit: string;
  /** Makes ours in its steady state. */
  readonly ours: (blockCount: number) => (units: number) => number;
  readonly peers: Readonly<Record<string, (blockCount: number) => (units: number) => number>>;
}

/** Every workload; each runs at every size. */
export const cases: readonly Case[] = [
  {
    name: 'churn without caching',
    metric: 'block taken and freed',
    unit: 'ns/block',
    ours: (blockCount) => churnPool(new BlockPool({ blockCount, blockSize })),
    peers: { Map: churnMap },
  },
  {
    name: 'churn with caching',
    metric: 'block taken and freed',
    unit: 'ns/block',
    ours: (blockCount) => {
      const pool = new BlockPool({ blockCount, blockSize });
      new PrefixCache(pool);
      return churnPool(pool);
    },
    peers: { Map: churnMap },
  },
  {
    name: 'new prompts',
    metric: 'block hashed, evicted, cached',
    unit: 'ns/block',
    ours: (blockCount) => newPrompts(manage(blockCount)),
    peers: { 'lru-cache': setInLru, Map: setInMap },
  },
  {
    name: 'cached prompts',
    metric: 'block hashed, hit, freed',
    unit: 'ns/block',
    ours: cachedPrompts,
    peers: {
      'lru-cache': (blockCount) => getFrom(blockCount, new LRUCache({ max: blockCount })),
      Map: (blockCount) => getFrom(blockCount, new Map()),
    },
  },
  {
    name: `decode of ${decodedSequences} sequences`,
    metric: 'token appended',
    unit: 'ns/token',
    ours: decode,
    peers: {},
  },
];

/** Measures one case at one size, ours and the peers in turn. */
export async function measureCase(
  name: string,
  blockCount: number,
  units: number,
): Promise<Measured> {
  const found = cases.find((each) => each.name === name);
  if (found === undefined) throw new Error(`no case ${name}`);
  const side = (make: (blockCount: number) => (units: number) => number): Measure => {
    const work = make(blockCount);
    // Steady state: every block has been used twice.
    work(Math.max(units, blockCount * 2));
    return perUnit(() => work(units));
  };
  const rivals = blockCount > 1_000_000 ? [] : Object.entries(found.peers);
  return measureInTurn(
    {
      ours: side(found.ours),
      peers: Object.fromEntries(rivals.map(([peer, make]) => [peer, side(make)])),
    },
    { runs: 7 },
  );
}

/** Measures every case at every size, each in a process of its own. */
export function run(options: BenchOptions): Promise<readonly BenchResult[]> {
  const sizes = options.quick ? [100_000] : [10_000, 100_000, 1_000_000, 10_000_000];
  const units = options.quick ? 200_000 : 1_000_000;
  const results = cases.flatMap(({ name, metric, unit }) =>
    sizes.map((blockCount) => {
      options.log(`measuring ${name}, ${blockCount} blocks`);
      const entry = fileURLToPath(new URL('allocator-case.ts', import.meta.url));
      const args = [...process.execArgv, entry, name, String(blockCount), String(units)];
      const text = execFileSync(process.execPath, args, { encoding: 'utf8' });
      // What allocator-case.ts prints.
      const measured = JSON.parse(text) as Measured;
      const label = { suite, case: `${name}, ${blockCount} blocks`, metric, unit };
      return toResult({ ...label, driver: 'none', better: 'lower' }, measured);
    }),
  );
  return Promise.resolve(results);
}
