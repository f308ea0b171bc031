/** The study's bookkeeping: documents, cells, questions, figures and their spread. */
import { fileURLToPath } from 'node:url';
import { loadTokenizer, openModelFile } from '@vramkit/example-runtime';
import { describe, expect, it } from 'vitest';
import { attendAll } from './attention-error.js';
import { inHalves } from './documents.js';
import { cellName, planStages, policyOf, WHOLE_GRID, type Cell } from './grid.js';
import { argmax, deviation, divergence, logSoftmax } from './metrics.js';
import { parseOptions } from './options.js';
import { toMarkdown } from './report/tables.js';
import { linePlot, ticks } from './report/plots.js';
import type { CellResult } from './results.js';
import { buildRetrieval, findFacts } from './retrieval.js';
import { rankCorrelation, scoreMeaning } from './score-meaning.js';
import { comparePaged, summarizeCells, verdict } from './summary.js';

const folder = fileURLToPath(new URL('../../../tools/models/tiny-moe/', import.meta.url));

describe('documents', () => {
  it('go to the halves in turn, as many of each list', () => {
    const list = (name: string) => [1, 2, 3].map((n) => ({ name: `${name}${n}`, text: '' }));
    const documents = inHalves([list('a'), list('b')], 4);
    expect(documents.map(({ name, half }) => `${name} ${half}`)).toEqual([
      ...['a1 seen', 'b1 seen', 'a2 unseen', 'b2 unseen'],
    ]);
    expect(() => inHalves([list('a')], 4)).toThrow(/invalid-argument/);
  });
});

describe('the grid', () => {
  it('has each cell once per part, the full cache in every stage', () => {
    const stages = planStages(WHOLE_GRID);
    const names = stages.flatMap(({ cells }) =>
      cells.filter(({ share }) => share < 1).map(cellName),
    );
    expect(new Set(names).size).toBe(names.length);
    for (const { cells } of stages) expect(cells[0]?.policy).toBe('full');
    const claim = names.filter((name) => /^continuation-b8-(pagedEviction|keyDiff)-/.test(name));
    expect(claim).toHaveLength(8);
  });

  it('gives policies of the budget, and a reason where there is none', () => {
    const cell: Cell = {
      ...{ part: 'continuation', policy: 'snapKv', share: 1 / 16, blockSize: 16 },
      prefill: 'token',
    };
    expect(policyOf(cell, 768)).toMatchObject({ budgetTokens: 48, attentionQueries: 16 });
    expect(policyOf({ ...cell, blockSize: 32 }, 768)).toMatch(/at least 3 blocks/);
    const literal = policyOf({ ...cell, policy: 'pagedEvictionLiteral' }, 768);
    expect(literal).toMatchObject({ protect: { firstTokens: 0, lastTokens: 0 } });
    const blocks = policyOf({ ...cell, policy: 'keyDiff', prefill: 'block' }, 768);
    expect(blocks).toMatchObject({ granularity: { prefill: 'block', decode: 'block' } });
  });
});

describe('questions', () => {
  it('have answers that stand in the context, behind the question', async () => {
    const file = await openModelFile(folder);
    const tokenizer = await loadTokenizer(file);
    await file.close();
    const sentence =
      'It was then that the good ship Pequod sailed. He said that they all met Ahab. ';
    const text = `${sentence}${'The sea was calm and the wind was low. '.repeat(40)}`;
    expect(findFacts(text).map(({ answer }) => answer)).toEqual(['Pequod', 'Ahab']);
    const { context, questions } = buildRetrieval(text, tokenizer, { contextTokens: 600, seed: 3 });
    expect(context.length).toBeLessThanOrEqual(600);
    expect(context.length).toBeGreaterThan(560);
    const whole = tokenizer.decode(context);
    expect(questions.filter(({ kind }) => kind === 'passkey')).toHaveLength(4);
    for (const { kind, ids, answerStart, answer, text: asked, depth } of questions) {
      expect(whole).toContain(`${asked} ${answer}`);
      expect(tokenizer.decode(ids.subarray(answerStart)).trim()).toBe(answer);
      if (kind === 'passkey') expect(whole.split(answer)).toHaveLength(2);
      expect(depth).toBeLessThan(1);
    }
    const keys = questions.filter(({ kind }) => kind === 'passkey').map(({ depth }) => depth);
    expect(keys).toEqual([...keys].sort((a, b) => a - b));
  });
});

describe('metrics', () => {
  it('are those of the distributions that the logits stand for', () => {
    const even = logSoftmax(Float32Array.of(5, 5, 5, 5));
    for (const value of even) expect(value).toBeCloseTo(Math.log(0.25), 12);
    expect(divergence(even, even)).toBe(0);
    const skewed = logSoftmax(Float32Array.of(Math.log(3), 0, -Infinity, -Infinity));
    expect(divergence(skewed, even)).toBeNaN();
    const finite = logSoftmax(Float32Array.of(Math.log(3), 0));
    const half = logSoftmax(Float32Array.of(0, 0));
    expect(divergence(finite, half)).toBeCloseTo(0.75 * Math.log(1.5) + 0.25 * Math.log(0.5), 6);
    expect(argmax([1, 3, 3])).toBe(1);
    expect(deviation([1, 3])).toBeCloseTo(Math.SQRT2, 12);
  });
});

function result(document: string, policy: string, loss: number, agrees: number): CellResult {
  const share = policy === 'full' ? 1 : 0.25;
  return {
    ...{ model: 'm', driver: 'd', document, half: document === 'a' ? 'seen' : 'unseen' },
    contextTokens: 64,
    cell: { part: 'continuation', policy, share, blockSize: 16, prefill: 'token' },
    continuation: {
      ...{ losses: [loss], agrees: [agrees], divergences: [0], kvPeakBytes: 10 },
      ...{ attentionError: [[0.5, 0.1]], keptMass: [[0.5, 0.9]], prefillEvictionMs: 1 },
    },
  };
}

describe('figures', () => {
  const results = [
    ...[result('a', 'full', 1, 1), result('b', 'full', 3, 1)],
    ...[result('a', 'pagedEviction', 1.25, 1), result('b', 'pagedEviction', 3.75, 0)],
    ...[result('a', 'keyDiff', 1.5, 0), result('b', 'keyDiff', 3.5, 0)],
  ];

  it('pair each document with the full cache', () => {
    const row = summarizeCells(results).find(
      ({ policy, documents }) => policy === 'pagedEviction' && documents === 'both',
    );
    expect(row?.figures.lossIncrease).toEqual({ mean: 0.5, deviation: Math.SQRT1_2 / 2, count: 2 });
    expect(row?.figures.perplexity?.mean).toBeCloseTo(Math.exp(2.5), 12);
    expect(row?.figures.attentionError?.mean).toBeCloseTo(0.3, 12);
  });

  it('pair PagedEviction with a rival, and say what the difference is worth', () => {
    const [both, seen, unseen] = comparePaged(results, ['keyDiff']);
    expect(both).toMatchObject({ rival: 'keyDiff', documents: 'both', wins: 1 });
    expect(both?.loss.mean).toBe(0);
    expect(both?.agreement.mean).toBe(0.5);
    expect([seen?.loss.mean, unseen?.loss.mean]).toEqual([0.25, -0.25]);
    expect(verdict({ mean: 1, deviation: 1, count: 16 })).toBe('better');
    expect(verdict({ mean: -1, deviation: 1, count: 16 })).toBe('worse');
    expect(verdict({ mean: 0.4, deviation: 1, count: 16 })).toBe('no clear difference');
    expect(verdict({ mean: 9, deviation: 0, count: 1 })).toBe('one document');
  });
});

describe('the report', () => {
  it('has ticks around all values, tables in Markdown, and text that ends no tag', () => {
    const scale = ticks(0, 0.37);
    expect(scale[0]).toBe(0);
    expect(scale[scale.length - 1]).toBeGreaterThanOrEqual(0.37);
    expect(
      toMarkdown([
        ['a', 'b'],
        ['1', '2'],
      ]),
    ).toBe('| a | b |\n| --- | --- |\n| 1 | 2 |');
    const of = { title: 'a < b', xTitle: '', format: String };
    const plot = linePlot(['x', 'y'], [{ name: '"n"', values: [1, undefined] }], of);
    expect(plot).not.toContain('a < b');
    expect(plot.match(/<circle/g)).toHaveLength(1);
  });
});

describe('the command line', () => {
  it('reads shares, and refuses what it does not know', () => {
    const options = parseOptions(['eviction', '--budgets', '4,16', '--out', 'here'], '/there');
    expect(options).toMatchObject({ shares: [1 / 4, 1 / 16], folder: '/there/here' });
    expect(() => parseOptions(['other'], '/')).toThrow(/the study is one of eviction/);
    expect(() => parseOptions(['eviction', '--part', 'x'], '/')).toThrow(/--part is one of/);
  });
});

describe('what ranks say about attention', () => {
  it('is 1 for numbers that order tokens as attention does, -1 for the reverse', () => {
    expect(rankCorrelation([1, 5, 9, 2], [10, 50, 90, 20])).toBe(1);
    expect(rankCorrelation([1, 5, 9, 2], [-1, -5, -9, -2])).toBe(-1);
  });

  it('finds keys that a query points to, and the say of a layer whose ratios spread more', () => {
    // One head of one dimension: the query is 1, so larger keys receive more attention.
    const keys = Float32Array.of(1, 2, 3, 4, 5);
    const rows = { heads: 1, kvHeads: 1, headDim: 1, queries: Float32Array.of(1), keys };
    const flat = attendAll({ ...rows, values: Float32Array.of(1, 2, 3, 4, 5) });
    const steep = attendAll({ ...rows, values: Float32Array.of(40, 30, 20, 10, 5) });
    const { correlations, say } = scoreMeaning([flat, steep], 0);
    expect(correlations.inverseKeyNorm).toEqual([-1, -1]);
    expect(correlations.valueNorm).toEqual([1, -1]);
    expect(correlations.position).toEqual([1, 1]);
    expect(say[0]).toBeLessThan(1e-6);
    expect((say[0] ?? 0) + (say[1] ?? 0)).toBeCloseTo(1, 12);
  });
});
