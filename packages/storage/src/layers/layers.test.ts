/** Every layer keeps the contract of what it wraps, alone and in stacks. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LruPolicy, seededRandom } from '@vramkit/core/testing';
import { describe, expect, it } from 'vitest';
import {
  cachedStore,
  chaoticStore,
  checksummedStore,
  limitedStore,
  memoryStore,
  posixStore,
  retriedStore,
  stripedStore,
  timedStore,
  tracedStore,
  type BlobStore,
} from '../index.js';
import { describeStore } from '../testing.js';

const api = { describe, it, expect };
const clock = (): number => performance.now();

const retried = (store: BlobStore, seed = 1): BlobStore => {
  const { uniform: random } = seededRandom(seed);
  return retriedStore(store, { random, tries: 12, baseDelayMs: 0, maxDelayMs: 1 });
};
const cached = (store: BlobStore): Promise<BlobStore> =>
  cachedStore(store, {
    near: memoryStore(),
    budgetBytes: 5 * 2 ** 20,
    policy: new LruPolicy<string>(),
    partBytes: 65_536,
  });
const limited = (store: BlobStore): BlobStore =>
  limitedStore(store, { maxCalls: 2, rate: { bytesPerSecond: 2 ** 32, clock } });

const LAYERS: Readonly<Record<string, (store: BlobStore) => BlobStore | Promise<BlobStore>>> = {
  retried,
  timed: (store) => timedStore(store, { timeoutMs: 10_000 }),
  checksummed: checksummedStore,
  limited,
  traced: (store) => tracedStore(store, { sink: () => undefined, clock }),
  cached,
  striped: (store) => stripedStore([store, store], { stripeBytes: 500_000 }),
  'retried over chaos at 10 %': (store) =>
    retried(chaoticStore(store, { random: seededRandom(7).uniform, failureRate: 0.1 })),
  'checksummed twice': (store) => checksummedStore(checksummedStore(store)),
};

for (const [name, layer] of Object.entries(LAYERS)) {
  describeStore(
    `${name} memory`,
    async () => {
      const memory = memoryStore();
      // Two clients of one store, each through a layer of its own.
      return { store: await layer(memory), other: await layer(memory) };
    },
    api,
    { seeds: [3], raceRounds: 8 },
  );
}

describeStore(
  'checksummed files, in small parts',
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-layers-'));
    const open = async (chunkBytes: number): Promise<BlobStore> =>
      checksummedStore(await posixStore({ folder, chunkBytes }));
    return {
      store: await open(300_000),
      other: await open(4096),
      reopen: () => open(2 ** 20),
      close: () => rm(folder, { recursive: true }),
    };
  },
  api,
  { seeds: [3], raceRounds: 4, pageKeys: 20 },
);

describeStore(
  'a whole stack over files',
  async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-layers-'));
    const open = async (): Promise<BlobStore> => {
      const disks = await Promise.all(
        [1, 2].map((i) => posixStore({ folder: join(folder, `${i}`) })),
      );
      const [first, second] = disks.map((disk) => checksummedStore(disk));
      if (first === undefined || second === undefined) throw new Error('two disks were opened');
      const striped = stripedStore([first, second], { stripeBytes: 2_000_000 });
      const safe = retried(limited(timedStore(striped, { timeoutMs: 10_000 })));
      return cached(tracedStore(safe, { sink: () => undefined, clock }));
    };
    return {
      store: await open(),
      other: await open(),
      reopen: open,
      close: () => rm(folder, { recursive: true }),
    };
  },
  api,
  { seeds: [4], steps: 60, raceRounds: 2, pageKeys: 20 },
);
