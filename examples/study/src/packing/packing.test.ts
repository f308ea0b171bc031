// The study of packing without a device: bytes, choices, tables and the plot.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Tokenizer } from '@vramkit/example-runtime';
import { bytesForBits, knapsackAllocator, optRtn, rtn } from '@vramkit/packer';
import { describe, expect, it } from 'vitest';
import { curvePlot, logTicks } from '../report/plots.js';
import { allocationUnits, chooseWidths, kept, lossByScore } from './allocation.js';
import type { Replaceable, ReplaceableModel } from './replaceable-model.js';
import { mixedTable, perplexityOf, riseOver } from './report.js';
import type { RowResult } from './run.js';
import { studyTexts } from './texts.js';
import { packed, packedOnce, storedBytes, widthName, type Width } from './stored.js';

const WIDTHS: readonly Width[] = [
  { bits: 2, groupSize: 128 },
  { bits: 4, groupSize: 32 },
];

/** What the functions here read of a matrix; there is no device. */
function matrix(unit: string, columns: number, size: number): Replaceable {
  const values = Float32Array.from({ length: 4 * columns }, (_, i) => size * Math.sin(i * 12.9898));
  const shape = { rows: 4, columns, layer: 0, firstRow: 0, values };
  return { name: `${unit}.down`, unit, ...shape } as unknown as Replaceable;
}

const units = [matrix('small', 128, 0.1), matrix('large', 128, 1)];
const model = { tensors: units } as unknown as ReplaceableModel;

describe('storedBytes', () => {
  const compact: Width = { bits: 3, groupSize: 64, factors: 'compact' };
  it.each([...WIDTHS, compact])('is what is stored at %o', (width) => {
    for (const columns of [128, 192]) {
      const tensor = matrix('any', columns, 1);
      expect(storedBytes(tensor, width)).toBe(packed(tensor, width, rtn()).bytes);
    }
  });
});

it('packedOnce gives the same values from its file', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'vramkit-packing-'));
  const tensor = matrix('any', 128, 1);
  const width: Width = { bits: 2, groupSize: 64 };
  const first = await packedOnce(folder, tensor, width, optRtn());
  expect(await packedOnce(folder, tensor, width, optRtn())).toEqual(first);
  expect(first).toEqual(packed(tensor, width, optRtn()));
  let made = 0;
  const make = () => Promise.resolve((made += 1));
  expect(await kept(join(folder, 'once.json'), make)).toBe(1);
  expect(await kept(join(folder, 'once.json'), make)).toBe(1);
  await rm(folder, { recursive: true });
});

it('calibrates on windows of the same length that no loss is judged on', async () => {
  const encode = (text: string): Uint32Array =>
    Uint32Array.from(text, (each) => each.charCodeAt(0));
  // Every character of a document occurs once.
  const textOf = (first: number): string =>
    String.fromCharCode(...Array.from({ length: 4000 }, (_, i) => first + i));
  const documents = [
    { name: 'a', half: 'seen', text: textOf(1000) },
    { name: 'b', half: 'unseen', text: textOf(6000) },
  ] as const;
  const sizes = { tokens: 20, textWindows: 2, documentWindows: 2, calibrationWindows: 3 };
  const tokenizer = { encode } as unknown as Tokenizer;
  const { evaluation, calibration } = await studyTexts(tokenizer, documents, sizes);
  expect(calibration).toHaveLength(3 * (2 + 1));
  expect(evaluation).toHaveLength(2 + 2 * 2);
  const windows = [...calibration, ...evaluation.map(({ ids }) => ids)];
  expect(windows.every(({ length }) => length === sizes.tokens)).toBe(true);
  const ofDocuments = windows.flatMap((ids) => [...ids]).filter((id) => id >= 1000);
  expect(new Set(ofDocuments).size).toBe(ofDocuments.length);
  expect(calibration.some((ids) => ids.some((id) => id >= 6000))).toBe(false);
  const most = { ...sizes, calibrationWindows: 1000 };
  await expect(studyTexts(tokenizer, documents, most)).rejects.toThrow(/judged/);
});

it('gives the bits to the unit that loses more', () => {
  const errors = Object.fromEntries(
    units.map(({ unit }) => {
      const own = WIDTHS.map((width, i) => [
        widthName(width),
        { weights: 4 - 3 * i, outputs: 0, columns: 0 },
      ]);
      return [unit, Object.fromEntries(own)];
    }),
  );
  const scores = new Map([
    ['small', 1],
    ['large', 5],
  ]);
  const found = allocationUnits(model, WIDTHS, lossByScore(errors, scores));
  expect(found.map(({ choices }) => choices.map(({ error }) => error))).toEqual([
    [4, 1],
    [20, 5],
  ]);
  const budgetBytes = bytesForBits(found, (2.25 + 5) / 2);
  const chosen = chooseWidths(found, WIDTHS, knapsackAllocator({ budgetBytes }));
  expect([...chosen]).toEqual([
    ['small', WIDTHS[0]],
    ['large', WIDTHS[1]],
  ]);
});

function row(name: string, losses: readonly number[], rest: Partial<RowResult> = {}): RowResult {
  return {
    ...{ model: 'm', driver: 'd', tokens: 8, order: 0, name, kind: 'uniform' },
    ...{ quantizer: 'optRtn-asymmetric', bitsPerWeight: 3, mse: 0.1, sqnrDb: 10 },
    windows: losses.map((loss) => ({ part: 'seen documents', text: 't', loss })),
    ...rest,
  };
}

describe('tables', () => {
  const base = row('2 bits, groups of 32', [2, 4]);
  const mixed = row('mopeq, knapsack', [1.9, 3.7], { kind: 'mixed', target: 3 });

  it('compares rows window by window', () => {
    const { mean, error } = riseOver(mixed, base);
    expect(mean).toBeCloseTo(-0.2, 12);
    // Rises of -0.1 and -0.3: a deviation of 0.1414 over the root of two.
    expect(error).toBeCloseTo(0.1, 12);
    expect(perplexityOf(base)).toBeCloseTo(Math.exp(3), 9);
  });

  it('sets a mixed row beside the best uniform one of its bits', () => {
    const worse = row('worse', [3, 4]);
    const wider = row('wider', [1, 1], { bitsPerWeight: 4 });
    const table = mixedTable([worse, base, wider, mixed]);
    expect(table).toHaveLength(2);
    expect(table[1]?.slice(4)).toEqual([
      '2 bits, groups of 32',
      '3.000',
      Math.exp(3).toFixed(3),
      '-0.2000 ± 0.1000',
    ]);
  });
});

describe('the plot', () => {
  it('has ticks around all values', () => {
    expect(logTicks(4, 20)).toEqual([3, 5, 7, 10, 15, 20]);
    expect(logTicks(15, 900)[0]).toBe(15);
    expect(logTicks(15, 900).at(-1)).toBe(1000);
  });

  it('has a line and its points for each curve', () => {
    const points = [
      [3, 10],
      [2, 100],
    ] as const;
    const of = { title: 'a < b', xTitle: 'x', format: String };
    const plot = curvePlot([{ name: 'one', points }], of);
    expect(plot.match(/<circle/g)).toHaveLength(2);
    expect(plot).toContain('a &#60; b');
    expect(plot).not.toContain('NaN');
  });
});
