/** Chunks at prefill: conformance around other policies, whole blocks, and chunks of any length. */
import { describe, expect, it } from 'vitest';
import { checkedPolicy } from '../checked.js';
import { full } from '../kv/full.js';
import { pagedEviction } from '../kv/paged-eviction.js';
import { snapKv } from '../kv/snap-kv.js';
import { streamingLlm } from '../kv/streaming-llm.js';
import type { KvPolicy } from '../policy.js';
import { describeKvPolicy, randomTokens } from '../testing.js';
import { inChunks } from './in-chunks.js';
import { protectRanges } from './protect-ranges.js';

const api = { describe, expect, it };
const size = { budgetTokens: 24, blockSize: 4 };

describeKvPolicy('inChunks of blocks', (each) => inChunks(pagedEviction(each)), api);
describeKvPolicy('inChunks of 5', (each) => inChunks(streamingLlm(each), { chunkTokens: 5 }), api);
describeKvPolicy(
  'inChunks of blocks, nothing protected',
  (each) => inChunks(pagedEviction({ ...each, paperLiteral: true })),
  api,
);
describeKvPolicy(
  'inChunks of itself',
  (each) => inChunks(inChunks(snapKv({ ...each, windowTokens: 1 })), { chunkTokens: 3 }),
  api,
);
describeKvPolicy('inChunks of full', (each) => inChunks(full(each)), api);

/** The held blocks of which some token stays, and whether each stays as a whole. */
function wholeBlocks(policy: KvPolicy, tokenCount: number): number[] {
  const kept = new Set(policy.selectTokens(randomTokens({ tokenCount, seed: tokenCount })));
  return Array.from({ length: Math.floor(tokenCount / 4) }, (_, block) => block).filter((block) => {
    const members = [0, 1, 2, 3].filter((i) => kept.has(block * 4 + i)).length;
    expect(members === 0 || members === 4).toBe(true);
    return members === 4;
  });
}

describe('inChunks', () => {
  it('keeps whole blocks, those of highest mean, and the partial last one', () => {
    for (const paperLiteral of [false, true]) {
      const policy = checkedPolicy(inChunks(pagedEviction({ ...size, paperLiteral })));
      expect(policy.granularity).toEqual({ prefill: 'block', decode: 'block' });
      for (const tokenCount of [40, 41, 43, 97]) {
        const tokens = randomTokens({ tokenCount, seed: tokenCount });
        const scores = [...policy.scoreBlocks(tokens)];
        const ends = paperLiteral ? [] : [0, scores.length - 1];
        const order = [...scores.keys()].filter((block) => !ends.includes(block));
        order.sort((a, b) => (scores[b] ?? 0) - (scores[a] ?? 0));
        const expected = [...ends, ...order.slice(0, 6 - ends.length)].sort((a, b) => a - b);
        expect(wholeBlocks(policy, tokenCount)).toEqual(expected);
        const kept = [...policy.selectTokens(tokens)];
        expect(kept.filter((token) => token >= tokenCount - (tokenCount % 4)).length).toBe(
          tokenCount % 4,
        );
      }
    }
  });

  it('keeps blocks whole that hold a protected position', () => {
    const policy = inChunks(protectRanges(pagedEviction(size), [{ start: 17, end: 19 }]));
    expect(wholeBlocks(policy, 60)).toContain(4);
  });

  it('scores a token by the mean of its chunk, the last one by what there is', () => {
    const base = pagedEviction(size);
    const tokens = randomTokens({ tokenCount: 12 });
    const plain = base.scoreTokens(tokens);
    const scores = inChunks(base, { chunkTokens: 5 }).scoreTokens(tokens);
    const mean = (from: number, to: number): number =>
      plain.subarray(from, to).reduce((sum, score) => sum + score, 0) / (to - from);
    for (let token = 0; token < 12; token++) {
      const from = token - (token % 5);
      expect(scores[token]).toBeCloseTo(mean(from, Math.min(12, from + 5)), 12);
    }
    expect(inChunks(base, { chunkTokens: 5 }).granularity.prefill).toBe('token');
  });

  it('says of other chunks around chunks of a block that blocks go in part', () => {
    const policy = inChunks(inChunks(pagedEviction(size)), { chunkTokens: 5 });
    expect(policy.granularity.prefill).toBe('token');
    const kept = new Set(policy.selectTokens(randomTokens({ tokenCount: 60, seed: 1 })));
    const counts = Array.from({ length: 15 }, (_, block) => {
      return [0, 1, 2, 3].filter((i) => kept.has(block * 4 + i)).length;
    });
    expect(counts.some((count) => count > 0 && count < 4)).toBe(true);
  });

  it('refuses chunks of nothing', () => {
    expect(() => inChunks(pagedEviction(size), { chunkTokens: 0 })).toThrow(
      expect.objectContaining({ code: 'invalid-argument' }),
    );
  });
});
