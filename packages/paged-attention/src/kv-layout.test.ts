/** The layout of a cache: every element has one place, runs cover all blocks within the limits. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bytesPerBlock,
  checkLayout,
  keyElement,
  layerBlockBytes,
  layerBlockElements,
  normBlockBytes,
  normElement,
  planRuns,
  tokenNorms,
  valueElement,
  type KvLayout,
} from './kv-layout.js';

const layouts: fc.Arbitrary<KvLayout> = fc.record({
  dtype: fc.constantFrom('f32' as const, 'f16' as const),
  layers: fc.integer({ min: 1, max: 3 }),
  kvHeads: fc.integer({ min: 1, max: 3 }),
  headDim: fc.integer({ min: 1, max: 8 }).map((n) => 4 * n),
  blockCount: fc.integer({ min: 1, max: 5 }),
  blockSize: fc.integer({ min: 1, max: 4 }).map((n) => 4 * n),
});

const sample: KvLayout = {
  dtype: 'f16',
  layers: 2,
  kvHeads: 3,
  headDim: 64,
  blockCount: 10,
  blockSize: 16,
};

describe('elements', () => {
  it('give K and V of a layer one place each, blocks contiguous', () => {
    fc.assert(
      fc.property(layouts, (layout) => {
        const { kvHeads, headDim, blockCount, blockSize } = layout;
        const perBlock = layerBlockElements(layout);
        const seen = new Uint8Array(blockCount * perBlock);
        for (let slot = 0; slot < blockCount * blockSize; slot++) {
          for (let head = 0; head < kvHeads; head++) {
            for (let d = 0; d < headDim; d++) {
              for (const element of [keyElement, valueElement]) {
                const at = element(layout, slot, head, d);
                const isInBlock = Math.floor(at / perBlock) === Math.floor(slot / blockSize);
                seen[at] = isInBlock ? (seen[at] ?? 2) + 1 : 2;
              }
            }
          }
        }
        expect(seen.every((count) => count === 1)).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  it('give the norms of a block one contiguous range', () => {
    fc.assert(
      fc.property(layouts, (layout) => {
        const { layers, kvHeads, blockCount, blockSize } = layout;
        const seen = new Uint8Array(blockCount * blockSize * tokenNorms(layout));
        for (let slot = 0; slot < blockCount * blockSize; slot++) {
          for (let layer = 0; layer < layers; layer++) {
            for (let head = 0; head < kvHeads; head++) {
              const at = normElement(layout, slot, layer, head);
              const block = Math.floor((at * 4) / normBlockBytes(layout));
              const isInBlock = block === Math.floor(slot / blockSize);
              seen[at] = isInBlock ? (seen[at] ?? 2) + 1 : 2;
              seen[at + 1] = (seen[at + 1] ?? 2) + 1;
            }
          }
        }
        expect(seen.every((count) => count === 1)).toBe(true);
      }),
      { numRuns: 30 },
    );
  });

  it('keep four elements of neighbouring keys beside each other, and a value whole', () => {
    expect(keyElement(sample, 5, 1, 7) - keyElement(sample, 5, 1, 6)).toBe(1);
    expect(keyElement(sample, 6, 1, 4) - keyElement(sample, 5, 1, 4)).toBe(4);
    expect(keyElement(sample, 5, 1, 8) - keyElement(sample, 5, 1, 4)).toBe(4 * 16);
    expect(valueElement(sample, 5, 1, 63) - valueElement(sample, 5, 1, 0)).toBe(63);
  });
});

describe('sizes', () => {
  it('count K, V and norms', () => {
    // 2 layers * 2 * 3 heads * 16 tokens * 64 elements * 2 bytes, and 2 * 3 * 2 norms of 4 bytes.
    expect(bytesPerBlock(sample)).toBe(2 * 2 * 3 * 16 * 64 * 2 + 16 * 2 * 3 * 2 * 4);
    expect(layerBlockBytes({ ...sample, dtype: 'f32' })).toBe(2 * layerBlockBytes(sample));
  });

  it('are refused where they are out of range, by name', () => {
    const bad: Partial<KvLayout>[] = [
      { layers: 0 },
      { kvHeads: 1.5 },
      { headDim: 6 },
      { headDim: 260 },
      { blockSize: 10 },
      { blockCount: Number.NaN },
      { blockCount: 2 ** 28 },
      // What a caller without a type checker could hand in.
      { dtype: 'bf16' as 'f16' },
    ];
    for (const change of bad) {
      expect(() => checkLayout({ ...sample, ...change }), JSON.stringify(change)).toThrow(
        expect.objectContaining({ code: 'invalid-argument' }),
      );
    }
    expect(() => checkLayout(sample)).not.toThrow();
  });
});

describe('runs', () => {
  it('cover all blocks in order and fit the binding, and no longer run would', () => {
    fc.assert(
      fc.property(layouts, fc.integer({ min: 1, max: 7 }), fc.nat(15), (layout, blocks, rest) => {
        const most = Math.max(layerBlockBytes(layout), normBlockBytes(layout));
        const limit = blocks * most + Math.min(rest, most - 1);
        const runs = planRuns(layout, {
          maxStorageBufferBindingSize: limit,
          maxBufferSize: limit + 4,
        });
        let next = 0;
        for (const run of runs) {
          expect(run.firstBlock).toBe(next);
          next += run.blockCount;
        }
        expect(next).toBe(layout.blockCount);
        expect(runs.every((run) => run.blockCount <= blocks)).toBe(true);
        expect(runs.slice(0, -1).every((run) => run.blockCount === blocks)).toBe(true);
      }),
    );
  });

  it('do not exist where a block exceeds the smaller limit', () => {
    const most = layerBlockBytes(sample);
    const limits = { maxStorageBufferBindingSize: 2 * most, maxBufferSize: most - 1 };
    expect(() => planRuns(sample, limits)).toThrow(
      expect.objectContaining({
        code: 'unsupported',
        context: { blockBytes: most, limitBytes: most - 1 },
      }),
    );
  });
});
