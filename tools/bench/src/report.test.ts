/** The reported shape: ratios, tables, and the file. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { formatFigure, formatResults, ratioOf, toResult, writeResults } from './report.js';
import type { FigureName } from './report.js';

const name: FigureName = {
  suite: 'decode',
  case: '128 tokens',
  metric: 'prefill',
  unit: 'tokens/s',
  driver: 'none',
  better: 'higher',
};
const summary = (median: number) => ({ median, min: median - 1, max: median + 2, runs: 5 });

describe('ratioOf', () => {
  it('is above 1 exactly where ours is better', () => {
    expect(ratioOf(20, 10, 'higher')).toBe(2);
    expect(ratioOf(20, 10, 'lower')).toBe(0.5);
    const figure = fc.double({ min: 1e-6, max: 1e6, noNaN: true });
    fc.assert(
      fc.property(figure, figure, (ours, peer) => {
        expect(ratioOf(ours, peer, 'higher') > 1).toBe(ours > peer);
        expect(ratioOf(ours, peer, 'lower') > 1).toBe(ours < peer);
      }),
    );
  });

  it('gives none of figures that are not positive', () => {
    expect(() => ratioOf(0, 1, 'higher')).toThrow(RangeError);
    expect(() => ratioOf(1, Number.NaN, 'lower')).toThrow(RangeError);
  });
});

describe('toResult', () => {
  const measured = { ours: summary(10), peers: { rival: summary(40) }, failures: { other: 'no' } };

  it('holds medians of both sides and the range of ours', () => {
    expect(toResult(name, measured)).toEqual({
      suite: 'decode',
      case: '128 tokens',
      metric: 'prefill',
      unit: 'tokens/s',
      ours: 10,
      peers: { rival: 40 },
      ratios: { rival: 0.25 },
      driver: 'none',
      runs: 5,
      min: 9,
      max: 12,
    });
  });

  it('turns the ratio where a lower figure is better', () => {
    expect(toResult({ ...name, better: 'lower' }, measured).ratios['rival']).toBe(4);
  });

  it('is written as it is, below "results"', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-report-'));
    try {
      const path = join(folder, 'new/file.json');
      const results = [toResult(name, measured)];
      await writeResults(path, results);
      expect(JSON.parse(await readFile(path, 'utf8'))).toEqual({ results });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});

describe('formatResults', () => {
  it('gives each peer a column and marks what a peer did not run', () => {
    const first = toResult(name, { ours: summary(10), peers: { a: summary(20) }, failures: {} });
    const second = toResult(
      { ...name, case: '512 tokens' },
      { ours: summary(8), peers: { b: summary(2) }, failures: {} },
    );
    const [head, one, two] = formatResults([first, second]).split('\n');
    expect(head).toMatch(/^case +metric +ours +range +a +b$/);
    expect(one).toMatch(
      /128 tokens +prefill, tokens\/s +10\.0 +\[9\.00-12\.0\] +20\.0 \(x0\.500\) +-$/,
    );
    expect(two).toMatch(/ - +2\.00 \(x4\.00\)$/);
  });

  it('writes figures in three digits', () => {
    expect(formatFigure(0)).toBe('0');
    expect(formatFigure(0.012345)).toBe('0.0123');
    expect(formatFigure(12.345)).toBe('12.3');
    expect(formatFigure(-1234.5)).toBe('-1234');
    expect(formatFigure(12345678)).toBe('1.23e+7');
  });
});
