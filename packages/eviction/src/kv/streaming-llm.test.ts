/** StreamingLLM: the conformance suite, and which tokens are sinks and window. */
import { describe, expect, it } from 'vitest';
import { describeKvPolicy, randomTokens } from '../testing.js';
import { blocksWith } from '../testing/random-tokens.js';
import { streamingLlm } from './streaming-llm.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });
const range = (start: number, end: number): number[] =>
  Array.from({ length: end - start }, (_, index) => start + index);

describeKvPolicy('streamingLlm', streamingLlm, { describe, expect, it });
describeKvPolicy('streamingLlm without sinks', (size) => streamingLlm({ ...size, sinkTokens: 0 }), {
  describe,
  expect,
  it,
});

describe('streamingLlm', () => {
  it('keeps the sinks, in whole blocks, and the most recent tokens', () => {
    for (const [sinkTokens, sinks] of [
      [0, 0],
      [1, 8],
      [4, 8],
      [8, 8],
      [9, 16],
    ] as const) {
      const policy = streamingLlm({ budgetTokens: 32, blockSize: 8, sinkTokens });
      for (const tokenCount of [41, 100, 104, 1003]) {
        const kept = policy.selectTokens(randomTokens({ tokenCount, layers: 1, kvHeads: 1 }));
        const recent = 32 + (tokenCount % 8) - sinks;
        expect([...kept]).toEqual([...range(0, sinks), ...range(tokenCount - recent, tokenCount)]);
      }
    }
  });

  it('drops the oldest block behind the sinks, whatever the scores', () => {
    const policy = streamingLlm({ budgetTokens: 32, blockSize: 8 });
    const blocks = blocksWith(40, [9, 8, -7, 6, 5]);
    expect(policy.selectVictim(blocks)).toEqual({ victim: 1, reason: 'capacity', score: 8 });
  });

  it('scores by position, whatever layers and heads', () => {
    const policy = streamingLlm({ budgetTokens: 32, blockSize: 8 });
    const tokens = { ...randomTokens({ tokenCount: 3 }), positions: Uint32Array.of(2, 30, 31) };
    expect([...policy.scoreTokens(tokens)]).toEqual([2, 30, 31]);
  });

  it('refuses budgets that leave no window', () => {
    for (const options of [
      { budgetTokens: 23, blockSize: 8 },
      { budgetTokens: 32, blockSize: 8, sinkTokens: 32 },
      { budgetTokens: 32, blockSize: 8, sinkTokens: -1 },
      { budgetTokens: 32, blockSize: 0 },
      { budgetTokens: NaN, blockSize: 8 },
    ]) {
      expect(() => streamingLlm(options)).toThrow(error('invalid-argument'));
    }
    expect(streamingLlm({ budgetTokens: 32, blockSize: 8, sinkTokens: 24 }).budgetTokens).toBe(32);
  });
});
