/** How a decode is split: partitions cover all tokens, scratch holds every length. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { planDecode } from './decode.js';
import { DECODE_MAX_HEADS, DECODE_TILE } from './kernels/decode-attention.wgsl.js';

const shape = { dtype: 'f16', kvHeads: 2, headDim: 64, blockSize: 16 } as const;
const requests = fc.record({
  ratio: fc.integer({ min: 1, max: 16 }),
  sequences: fc.integer({ min: 1, max: 600 }),
  maxLength: fc.nat(200_000),
});

it('partitions cover all tokens in whole tiles; none is empty', () => {
  fc.assert(
    fc.property(requests, ({ ratio, sequences, maxLength }) => {
      const heads = 2 * ratio;
      const plan = planDecode(shape, { heads, sequences, maxLength });
      const { partitions, partitionTokens, headsPerWorkgroup } = plan;
      expect(ratio % headsPerWorkgroup).toBe(0);
      expect(headsPerWorkgroup).toBeLessThanOrEqual(DECODE_MAX_HEADS);
      expect(partitionTokens % DECODE_TILE).toBe(0);
      expect(partitions * partitionTokens).toBeGreaterThanOrEqual(maxLength);
      expect((partitions - 1) * partitionTokens).toBeLessThan(Math.max(1, maxLength));
    }),
  );
});

it('scratch depends on the shape of the call only, and holds every partition', () => {
  fc.assert(
    fc.property(requests, ({ ratio, sequences, maxLength }) => {
      const heads = 2 * ratio;
      const plan = planDecode(shape, { heads, sequences, maxLength });
      const short = planDecode(shape, { heads, sequences, maxLength: 1 });
      expect(short.scratchBytes).toBe(plan.scratchBytes);
      const partialBytes = (shape.headDim / 4 + 1) * 16;
      expect(sequences * heads * plan.partitions * partialBytes).toBeLessThanOrEqual(
        plan.scratchBytes,
      );
    }),
  );
});

it('one long sequence is split, many are not', () => {
  expect(planDecode(shape, { heads: 8, sequences: 1, maxLength: 8192 }).partitions).toBe(64);
  expect(planDecode(shape, { heads: 8, sequences: 512, maxLength: 8192 }).partitions).toBe(1);
});
