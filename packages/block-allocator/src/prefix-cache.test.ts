/**
 * Digests, nodes and the two indexes: behaviours 9 to 16, and that hash and radix index give the
 * same answers. A hasher whose digests all collide shows that tokens decide, not digests.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  digestText,
  fastHasher,
  packBlockKey,
  sha256Hasher,
  unpackBlockKey,
  type BlockHasher,
} from './block-hasher.js';
import { BlockPool } from './block-pool.js';
import { extraKey } from './content-keys.js';
import { KvCacheManager } from './kv-cache-manager.js';
import { PrefixCache, type PrefixCacheOptions } from './prefix-cache.js';
import { ROOT_NODE } from './prefix-nodes.js';
import { SlotMapping } from './slot-mapping.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const BLOCK = 4;

function run(count: number, first = 0): Uint32Array {
  return Uint32Array.from({ length: count }, (_, index) => first + index);
}

/** Digests of all full blocks. */
function chain(hasher: BlockHasher, tokens: Uint32Array, seed = '', extra = ''): string[] {
  const digest = new Int32Array(hasher.words);
  const parent = new Int32Array(hasher.words);
  hasher.root(seed, parent);
  const digests: string[] = [];
  for (let start = 0; start + BLOCK <= tokens.length; start += BLOCK) {
    hasher.hash(parent, 0, tokens, start, BLOCK, start === 0 ? extra : '', digest);
    digests.push(digestText(digest, 0, hasher.words));
    parent.set(digest);
  }
  return digests;
}

/** A hasher whose digests are all equal. */
const colliding: BlockHasher = {
  name: 'colliding',
  words: 2,
  root: (_, out) => void out.fill(1),
  hash: (...args) => void args[6].fill(7),
};

describe.each([fastHasher(), sha256Hasher()])('hasher $name', (hasher) => {
  it('behaviour 9: one changed token changes its digest and all later ones, no earlier one', () => {
    const tokens = run(20);
    const digests = chain(hasher, tokens);
    expect(chain(hasher, run(20))).toEqual(digests);
    expect(new Set(digests).size).toBe(5);
    for (let changed = 0; changed < 20; changed++) {
      const others = chain(hasher, tokens.with(changed, 999));
      const block = Math.floor(changed / BLOCK);
      expect(others.slice(0, block)).toEqual(digests.slice(0, block));
      for (let index = block; index < 5; index++) expect(others[index]).not.toBe(digests[index]);
    }
  });

  it('behaviours 11 and 12: a salt or extra key changes its digest and all behind it', () => {
    const plain = chain(hasher, run(12));
    const salted = chain(hasher, run(12), '', 'salt');
    expect(chain(hasher, run(12), '', 'salt')).toEqual(salted);
    salted.forEach((digest, index) => expect(digest).not.toBe(plain[index]));
    expect(chain(hasher, run(12), '', 'sal t')).not.toEqual(salted);
  });

  it('behaviour 14: chains begin with the seed, reproducibly; another seed shares nothing', () => {
    const one = chain(hasher, run(12), 'one');
    expect(chain(hasher, run(12), 'one')).toEqual(one);
    chain(hasher, run(12), 'two').forEach((digest, index) => expect(digest).not.toBe(one[index]));
  });

  it('behaviour 13: digest and group make one key and come apart again', () => {
    const digest = chain(hasher, run(4))[0] ?? '';
    const keys = [0, 1, 255].map((group) => packBlockKey(digest, group));
    expect(new Set(keys).size).toBe(3);
    expect(keys.map((key) => unpackBlockKey(key).group)).toEqual([0, 1, 255]);
    expect(keys.map((key) => unpackBlockKey(key).digest)).toEqual([digest, digest, digest]);
  });
});

it('the fast hasher spreads blocks that differ in one small token over both words', () => {
  const hasher = fastHasher();
  const seen = [new Set<number>(), new Set<number>()];
  const out = new Int32Array(2);
  for (let index = 0; index < 16; index++) {
    for (let token = 1; token <= 4096; token++) {
      hasher.hash(new Int32Array(2), 0, new Uint32Array(16).with(index, token), 0, 16, '', out);
      seen.forEach((set, word) => set.add(out[word] ?? 0));
    }
  }
  // 65,536 values in 2^32 places collide less than once on average; allow a few.
  for (const set of seen) expect(set.size).toBeGreaterThan(65_536 - 8);
});

it('the SHA-256 chain is that of node:crypto', async () => {
  const { createHash } = await import('node:crypto');
  const root = createHash('sha256').update('seed').digest();
  const tokens = Buffer.from(run(4, 70_000).buffer);
  const expected = createHash('sha256').update(root).update(tokens).update('é').digest();
  const words = Array.from({ length: 8 }, (_, word) => expected.readUInt32LE(word * 4));
  expect(chain(sha256Hasher(), run(4, 70_000), 'seed', 'é')[0]).toBe(
    words.map((word) => word.toString(16).padStart(8, '0')).join(''),
  );
});

describe.each(['hash', 'radix'] as const)('PrefixCache with the %s index', (index) => {
  const make = (options: PrefixCacheOptions = {}): PrefixCache =>
    new PrefixCache(new BlockPool({ blockCount: 20, blockSize: BLOCK }), { index, ...options });

  it('behaviour 12: extra keys separate equal tokens', () => {
    const cache = make();
    const plain = cache.extend(ROOT_NODE, run(4), 0);
    const image = cache.extend(ROOT_NODE, run(4), 0, 'image');
    expect(image).not.toBe(plain);
    expect(cache.find(ROOT_NODE, run(4), 0)).toBe(plain);
    expect(cache.find(ROOT_NODE, run(4), 0, 'image')).toBe(image);
    expect(cache.find(ROOT_NODE, run(4), 0, 'other')).toBe(0);
    cache.release(image);
    expect(cache.find(ROOT_NODE, run(4), 0, 'image')).toBe(0);
    cache.check();
  });

  it('behaviour 13: equal tokens of two groups have blocks of their own', () => {
    const cache = make({ groupCount: 2 });
    const [one = 0, two = 0] = cache.pool.allocate(2);
    const node = cache.extend(ROOT_NODE, run(4), 0);
    cache.attach(one, node, 0);
    expect([cache.blockOf(node, 0), cache.blockOf(node, 1)]).toEqual([one, 0]);
    cache.attach(two, node, 1);
    cache.forget(one);
    expect([cache.blockOf(node, 0), cache.blockOf(node, 1)]).toEqual([0, two]);
    cache.check();
  });

  it('behaviour 15: several blocks of one content; forgetting one leaves the others', () => {
    const cache = make();
    const ids = [...cache.pool.allocate(3)];
    const node = cache.extend(ROOT_NODE, run(4), 0);
    for (const id of ids) cache.attach(id, node);
    cache.release(node);
    cache.forget(17); // is not cached
    const left = [...ids];
    for (const id of [ids[1] ?? 0, ids[2] ?? 0]) {
      cache.forget(id);
      left.splice(left.indexOf(id), 1);
      expect(left).toContain(cache.blockOf(cache.find(ROOT_NODE, run(4), 0), 0));
      cache.check();
    }
    cache.forget(ids[0] ?? 0);
    expect(cache.find(ROOT_NODE, run(4), 0)).toBe(0);
    expect(cache.nodes.size).toBe(0);
  });

  it('behaviour 16: a block that is cached cannot be cached as something else', () => {
    const cache = make();
    const [id = 0] = cache.pool.allocate(1);
    const node = cache.extend(ROOT_NODE, run(4), 0);
    cache.attach(id, node);
    expect(() => cache.attach(id, node)).toThrow(error('invariant'));
    expect(() => cache.attach(1000, node)).toThrow(error('invalid-argument'));
    cache.check();
  });

  it('a parent outlives its block while a child is cached, and goes with it', () => {
    const cache = make();
    const [one = 0, two = 0] = cache.pool.allocate(2);
    const parent = cache.extend(ROOT_NODE, run(8), 0);
    const child = cache.extend(parent, run(8), 4);
    cache.attach(one, parent);
    cache.attach(two, child);
    cache.release(parent);
    cache.release(child);
    cache.forget(one);
    expect(cache.find(cache.find(ROOT_NODE, run(8), 0), run(8), 4)).toBe(child);
    cache.check();
    cache.forget(two);
    expect(cache.nodes.size).toBe(0);
  });

  it('knows no more prefixes than it has room for, and goes on without them', () => {
    const pool = new BlockPool({ blockCount: 20, blockSize: BLOCK });
    const manager = new KvCacheManager(pool, { index, nodeCapacity: 2 });
    const sequence = manager.tryAllocate(run(17), new SlotMapping()) ?? 0;
    manager.check();
    expect(manager.match(run(17))).toBe(8);
    manager.truncate(sequence, 6);
    expect(manager.tryAppend(sequence, run(7, 6), new SlotMapping())).toBe(true);
    manager.check();
    manager.free(sequence);
    expect(manager.tryAllocate(run(17, 50), new SlotMapping())).toBeDefined();
    manager.check();
  });

  it('never serves other tokens, even if all digests collide', () => {
    const pool = new BlockPool({ blockCount: 40, blockSize: BLOCK });
    const manager = new KvCacheManager(pool, { index, hasher: colliding });
    for (const first of [0, 100, 200]) manager.tryAllocate(run(13, first), new SlotMapping());
    expect(manager.match(run(13, 100))).toBe(12);
    expect(manager.match(Uint32Array.of(...run(8, 100), ...run(5, 8)))).toBe(8);
    // The second block of one prompt behind the first block of another.
    expect(manager.match(Uint32Array.of(...run(4, 100), ...run(9, 4)))).toBe(4);
    manager.check();
  });
});

it('an extra key names what a block touches, and where', () => {
  const keys = { namespace: 'lora', spans: [{ start: 6, end: 9, key: 'cat' }] };
  expect(extraKey({}, 0, 4)).toBe('');
  expect(extraKey(keys, 0, 4)).toBe('["lora"]');
  expect(extraKey(keys, 4, 8)).toBe('["",["cat",-2]]');
  expect(extraKey(keys, 8, 12)).toBe('["",["cat",2]]');
  expect(extraKey(keys, 12, 16)).toBe('');
});

it('behaviours 11 and 12 through the manager: salt, adapter and image separate prompts', () => {
  const manager = new KvCacheManager(new BlockPool({ blockCount: 40, blockSize: BLOCK }));
  const image = (key: string) => ({ spans: [{ start: 5, end: 7, key }] });
  manager.tryAllocate(run(13), new SlotMapping(), { keys: { namespace: 'a' } });
  manager.tryAllocate(run(13), new SlotMapping(), { keys: image('cat') });
  expect(manager.match(run(13))).toBe(4); // shares the block before the image
  expect(manager.match(run(13), { namespace: 'a' })).toBe(12);
  expect(manager.match(run(13), { namespace: 'b' })).toBe(0);
  expect(manager.match(run(13), image('cat'))).toBe(12);
  expect(manager.match(run(13), image('dog'))).toBe(4);
  expect(() => manager.tryAllocate(run(3), new SlotMapping(), { keys: image('') })).not.toThrow();
  const bad = { keys: { spans: [{ start: 3, end: 3, key: 'x' }] } };
  expect(() => manager.tryAllocate(run(9), new SlotMapping(), bad)).toThrow(
    error('invalid-argument'),
  );
});

describe('radix against hash index', () => {
  it('gives the same nodes for random trees, and the longest common prefix of siblings', () => {
    const block = fc.array(fc.constantFrom(0, 1, 2, 2 ** 31, 2 ** 32 - 1), {
      minLength: 3,
      maxLength: 3,
    });
    const change = fc.record({
      isRemoval: fc.boolean(),
      pick: fc.nat(50),
      tokens: block,
      extra: fc.constantFrom('', '', 'x'),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 60 }), block, (changes, query) => {
        const make = (index: 'hash' | 'radix'): PrefixCache =>
          new PrefixCache(new BlockPool({ blockCount: 80, blockSize: 3 }), { index });
        const hash = make('hash');
        const radix = make('radix');
        const live: { node: number; other: number }[] = [];
        for (const { isRemoval, pick, tokens, extra } of changes) {
          const chosen = live[pick % Math.max(1, live.length)];
          if (isRemoval && chosen !== undefined) {
            live.splice(live.indexOf(chosen), 1);
            hash.release(chosen.node);
            radix.release(chosen.other);
          } else {
            const given = Uint32Array.from(tokens);
            const [parent, above] = [chosen?.node ?? ROOT_NODE, chosen?.other ?? ROOT_NODE];
            const known = hash.find(parent, given, 0, extra);
            expect(radix.find(above, given, 0, extra) === 0).toBe(known === 0);
            const node = hash.extend(parent, given, 0, extra);
            live.push({ node, other: radix.extend(above, given, 0, extra) });
          }
          hash.nodes.check();
          radix.nodes.check();
          expect(radix.nodes.size).toBe(hash.nodes.size);
        }
        const given = Uint32Array.from(query);
        for (const parent of [ROOT_NODE, ...live.map(({ other }) => other)]) {
          for (const count of [1, 2, 3]) {
            const lengths = [...radix.nodes.live()]
              .filter((node) => radix.nodes.parentOf(node) === parent)
              .filter((node) => radix.nodes.extraOf(node) === '')
              .map((node) => radix.nodes.commonTokens(node, given, 0, count));
            const found = radix.nearest(parent, given, 0, count);
            expect(found?.tokenCount ?? 0).toBe(Math.max(0, ...lengths));
          }
        }
      }),
      { numRuns: 500 },
    );
  });

  it('a hit may end inside a block, whose tokens are copied', () => {
    const pool = new BlockPool({ blockCount: 20, blockSize: BLOCK });
    const manager = new KvCacheManager(pool, { index: 'radix' });
    manager.free(manager.tryAllocate(run(12), new SlotMapping()) ?? 0); // 1 2 3
    const tokens = Uint32Array.of(...run(7), 70, 71);
    expect(manager.match(tokens)).toBe(7);
    expect(manager.blocksNeeded(tokens)).toBe(3);
    const step = new SlotMapping();
    const sequence = manager.tryAllocate(tokens, step) ?? 0;
    manager.check();
    expect(manager.hitTokens(sequence)).toBe(7);
    expect([...step.positions]).toEqual([7, 8]);
    const [, to] = manager.table(sequence).blocks;
    expect(step.copies).toEqual([{ from: 2, to, tokens: 3 }]);
    expect(manager.match(run(13))).toBe(12);
    expect(manager.match(tokens)).toBe(8);
  });

  it('copies no block that its own mapping still has to write', () => {
    const pool = new BlockPool({ blockCount: 20, blockSize: BLOCK });
    const manager = new KvCacheManager(pool, { index: 'radix' });
    const step = new SlotMapping();
    manager.tryAllocate(run(9), step);
    const tokens = Uint32Array.of(...run(7), 70, 71);
    const second = manager.tryAllocate(tokens, step) ?? 0;
    expect(step.copies).toEqual([]);
    expect(manager.hitTokens(second)).toBe(4); // whole blocks are read behind the writes
    expect([...step.positions].slice(9)).toEqual([4, 5, 6, 7, 8]);
    step.clear();
    manager.tryAllocate(Uint32Array.of(...run(7), 80, 81), step);
    expect(step.copies.map(({ tokens: copied }) => copied)).toEqual([3]);
    manager.check();
  });
});
