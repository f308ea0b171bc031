/**
 * Every KV policy over block tables, without a GPU: prefill, forks and decode, driven as the
 * runtime drives them. What a cache would measure is a hash of sequence and position.
 */
import { BlockPool, KvSequences } from '@vramkit/block-allocator';
import { seededRandom } from '@vramkit/core/testing';
import {
  bindPolicy,
  everyTokens,
  inChunks,
  KV_POLICY_NAMES,
  kvPolicy,
  type KvNeed,
  type KvPolicy,
  type KvTokens,
} from '@vramkit/eviction';
import { randomTokens } from '@vramkit/eviction/testing';
import { describe, expect, it } from 'vitest';

const blockSize = 4;
const budgetTokens = 24;
const options = { budgetTokens, blockSize, windowTokens: 4, lagTokens: 5, protectLastBlocks: 1 };
const provides: readonly KvNeed[] = [
  ...(['keyNorm', 'valueNorm', 'keySimilarity', 'keys', 'values', 'attention', 'queries'] as const),
];

/** What is cached for the held positions; equal positions have equal numbers in all sequences. */
const measured = randomTokens({ tokenCount: 400, layers: 1, kvHeads: 1 });

function describeHeld(positions: Uint32Array): KvTokens {
  const rows = (array: Float32Array | undefined, width: number): Float32Array =>
    Float32Array.from({ length: positions.length * width }, (_, i) => {
      return array?.[(positions[Math.floor(i / width)] ?? 0) * width + (i % width)] ?? NaN;
    });
  const { queries, ...tokens } = measured;
  return {
    tokenCount: positions.length,
    layers: 1,
    kvHeads: 1,
    positions: positions.slice(),
    ...(queries && { queries }),
    keyNorm: rows(tokens.keyNorm, 1),
    valueNorm: rows(tokens.valueNorm, 1),
    keySimilarity: rows(tokens.keySimilarity, 1),
    attention: rows(tokens.attention, 1),
    keys: rows(tokens.keys, 4),
    values: rows(tokens.values, 4),
  };
}

/** One append and the evictions behind it; returns the blocks that went. */
function step(sequences: KvSequences, id: number, policy: KvPolicy): number {
  sequences.append(id, 1);
  const table = sequences.table(id);
  const blockFilled = table.cachedTokenCount % blockSize === 0;
  for (let gone = 0; ; gone++) {
    const { tokenCount, cachedTokenCount, positions } = table;
    const progress = { tokenCount, cachedTokenCount, blockFilled };
    if (!policy.mustEvict(progress)) return gone;
    const before = [...positions];
    const scores = policy.scoreBlocks(describeHeld(positions));
    const victim = policy.selectVictim({ ...progress, positions, scores })?.victim ?? NaN;
    const free = sequences.pool.freeCount;
    const isShared = sequences.pool.referenceCount(table.blocks[victim] ?? 0) > 1;
    sequences.dropBlock(id, victim);
    // Behaviour 43: the block is free unless a fork holds it; the rest stays, in order.
    expect(sequences.pool.freeCount).toBe(free + (isShared ? 0 : 1));
    expect([...table.positions]).toEqual(before.toSpliced(victim * blockSize, blockSize));
  }
}

const policies = KV_POLICY_NAMES.filter((name) => name !== 'full').map((name) =>
  kvPolicy(name, options),
);
const wrapped = [
  inChunks(kvPolicy('pagedEviction', options)),
  everyTokens(kvPolicy('h2o', options), { intervalTokens: 3 * blockSize }),
];

describe('behaviours 42, 43, 45: policies over block tables', () => {
  for (const [index, bare] of [...policies, ...wrapped].entries()) {
    it(`${bare.name} ${index} bounds the cache, and leaves forks alone`, () => {
      const policy = bindPolicy(bare, { blockSize, provides, attentionQueries: Infinity });
      const random = seededRandom(index);
      const sequences = new KvSequences(new BlockPool({ blockCount: 200, blockSize }));
      const trunk = sequences.create();
      sequences.append(trunk, 61);
      const kept = policy.selectTokens(describeHeld(sequences.table(trunk).positions));
      expect(kept.length).toBe(25);
      const fork = sequences.fork(trunk).sequence;
      const forked = [...sequences.table(fork).positions];
      sequences.compact(trunk, kept);
      expect([...sequences.table(trunk).positions]).toEqual([...kept]);
      const second = sequences.fork(trunk).sequence;
      const limit = budgetTokens + (index === policies.length + 1 ? 3 : 1) * blockSize - 1;
      const ids = [trunk, second];
      for (let i = 0; i < 150; i++) {
        const id = ids[random.integer(0, 1)] ?? trunk;
        const other = ids.find((each) => each !== id) ?? second;
        const before = [...sequences.table(other).positions];
        step(sequences, id, policy);
        expect([...sequences.table(other).positions]).toEqual(before);
        expect(sequences.table(id).cachedTokenCount).toBeLessThanOrEqual(limit);
        expect(sequences.table(id).cachedTokenCount % blockSize).toBe(
          sequences.table(id).tokenCount % blockSize,
        );
        sequences.check();
      }
      expect([...sequences.table(fork).positions]).toEqual(forked);
      for (const id of [...ids, fork]) sequences.free(id);
      expect(sequences.pool.freeCount).toBe(199);
    });
  }
});
