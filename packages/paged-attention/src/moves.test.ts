/** Copies in runs give what the same copies give one after the other. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { COPIES_PER_DISPATCH } from './kernels/copy-blocks.wgsl.js';
import { planCopies, type BlockPair } from './moves.js';

const block = fc.nat(40);
const lists = fc.array(fc.record({ from: block, to: block }), { maxLength: 80 });

it('runs of copies equal copies one by one, whatever the order within a run', () => {
  fc.assert(
    fc.property(lists, (copies) => {
      const expected = Array.from({ length: 41 }, (_, id) => id);
      for (const { from, to } of copies) expected[to] = expected[from] ?? -1;
      const blocks = Array.from({ length: 41 }, (_, id) => id);
      for (const run of planCopies(copies)) {
        expect(run.length).toBeLessThanOrEqual(COPIES_PER_DISPATCH);
        for (const { from, to } of [...run].reverse()) blocks[to] = blocks[from] ?? -1;
      }
      expect(blocks).toEqual(expected);
    }),
  );
});

it('independent copies share a dispatch, copies onto themselves vanish', () => {
  const copies: BlockPair[] = [
    { from: 1, to: 2 },
    { from: 3, to: 3 },
    { from: 1, to: 4 },
  ];
  expect(planCopies(copies)).toEqual([[copies[0], copies[2]]]);
  expect(planCopies([])).toEqual([]);
});
