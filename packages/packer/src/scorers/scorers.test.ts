// Scores: the closed form equals its probes, counts are honoured, a trace known by algebra is
// found.
import { describe, expect, it } from 'vitest';
import { sampleFloats } from '../kernels/sample-matrix.js';
import { activationMoments } from '../quantizers/moments.js';
import { activationFrequency, hybrid } from './frequency.js';
import { estimateHessianTrace, hessianTrace } from './hessian-trace.js';
import { mopeq, mopeqProbe } from './mopeq.js';
import { imatrixError, measureUnit, outputError } from './output-error.js';
import { correlationReport, rankCorrelation } from './rank-correlation.js';
import { cachedScorer, unitDigest } from './score-cache.js';
import type { LoadedUnit } from './scorer.js';

function expert(id: string, scale: number, seed: number): LoadedUnit {
  const tensor = (name: string, i: number) => ({
    name: `${id}.${name}`,
    rows: 64,
    columns: 128,
    values: sampleFloats(64 * 128, seed + i).map((value) => scale * value),
  });
  return { id, layer: 0, tensors: ['gate', 'up', 'down'].map(tensor) };
}

describe('checklist 9: mopeq', () => {
  it('is the sum of inverse norms, in f64', async () => {
    const values = Float32Array.of(3, 4, 0, 0);
    const tensors = [1, 2].map((factor) => ({
      name: `w${factor}`,
      rows: 1,
      columns: 4,
      values: values.map((value) => factor * value),
    }));
    expect(await mopeq().score({ id: 'e', layer: 0, tensors })).toBe(1 / 5 + 1 / 10);
    const zero = [{ name: 'w', rows: 1, columns: 4, values: new Float32Array(4) }];
    expect(await mopeq().score({ id: 'z', layer: 0, tensors: zero })).toBe(0);
    expect(await mopeqProbe().score({ id: 'z', layer: 0, tensors: zero })).toBe(0);
  });

  it('equals its probes up to 1/N, whatever the seed', async () => {
    for (const [scale, seed] of [
      [0.1, 1],
      [7, 50],
    ] as const) {
      const unit = expert('e', scale, seed);
      const exact = await mopeq().score(unit);
      const probed = await mopeqProbe({ probes: 20, seed }).score(unit);
      // 1/N is 1.2e-4 here, and a probe is off by sqrt(2)/N.
      const expected = exact * (1 - 1 / (64 * 128));
      expect(Math.abs(probed / expected - 1)).toBeLessThan(1e-4);
      expect(await mopeqProbe({ probes: 20, seed }).score(unit)).toBe(probed);
    }
  });
});

describe('frequency', () => {
  it('checklist 17: honours counts; an unused expert gets the prior and a warning', () => {
    const warnings: string[] = [];
    const counts = new Map([
      ['a', 40],
      ['b', 0],
    ]);
    const scorer = activationFrequency({
      counts,
      priorCount: 2,
      onWarning: (message) => warnings.push(message),
    });
    const scores = ['a', 'b', 'c'].map((id) => Number(scorer.score(expert(id, 1, 1))));
    expect(scores).toEqual([40, 2, 2]);
    expect(warnings).toHaveLength(2);
    expect(() => activationFrequency({ counts: new Map([['a', NaN]]) })).toThrow(/NaN/);
  });

  it('checklist 9: hybrid multiplies powers', async () => {
    const counts = new Map([['a', 9]]);
    const parts = [
      { scorer: activationFrequency({ counts }), exponent: 0.5 },
      { scorer: { name: 'mine', score: () => 5 } },
    ];
    expect(await hybrid(parts).score(expert('a', 1, 1))).toBe(15);
    expect(hybrid(parts).name).toBe('hybrid(activationFrequency, mine)');
  });
});

describe('checklist 9: measured error', () => {
  it('falls with the width, and counts what the activations see', () => {
    const unit = expert('e', 1, 7);
    const errors = [2, 3, 4, 8].map((bits) => measureUnit(unit, { bits: bits as 2 | 3 | 4 | 8 }));
    errors.slice(1).forEach((error, i) => expect(error).toBeLessThan((errors[i] ?? 0) / 2));
    const quiet = sampleFloats(50 * 128, 3).map((value, i) => (i % 128 < 64 ? value : 0));
    const moments = activationMoments(quiet, 128);
    const seen = { ...unit, tensors: unit.tensors.map((tensor) => ({ ...tensor, moments })) };
    const loud = activationMoments(sampleFloats(50 * 128, 3), 128);
    const all = { ...unit, tensors: unit.tensors.map((tensor) => ({ ...tensor, moments: loud })) };
    const score = outputError({ bits: 3 });
    expect(score.score(seen)).toBeLessThan(0.8 * Number(score.score(all)));
  });

  it('imatrix weighs columns', async () => {
    const importance = new Float32Array(128).fill(0, 0, 64).fill(1, 64);
    const unit = expert('e', 1, 9);
    const half = { ...unit, tensors: unit.tensors.map((each) => ({ ...each, importance })) };
    const whole = await imatrixError({ bits: 4 }).score(unit);
    expect(await imatrixError({ bits: 4 }).score(half)).toBeLessThan(0.7 * whole);
  });
});

describe('checklist 9: hessianTrace', () => {
  // loss = sum over i of c_i w_i^2 / 2 + linear terms: the trace is the sum of c, whatever w is.
  const unit = expert('e', 0.05, 3);
  const curvature = (i: number): number => 1 + (i % 5);
  const loss = (changes: ReadonlyMap<string, Float32Array>): number => {
    let sum = 0;
    for (const { name, values } of unit.tensors) {
      const w = changes.get(name) ?? values;
      w.forEach((value, i) => (sum += (curvature(i) * value * value) / 2 + 0.1 * value));
    }
    return sum;
  };

  it('finds the trace of a quadratic loss by forward passes', async () => {
    const { mean, standardError } = await estimateHessianTrace(unit, { loss, probes: 4, seed: 2 });
    const size = 3 * 64 * 128;
    let trace = 0;
    for (let i = 0; i < size; i++) trace += curvature(i % (64 * 128));
    // A diagonal Hessian has the same curvature along every vector of signs.
    expect(Math.abs(mean / trace - 1)).toBeLessThan(1e-3);
    expect(standardError).toBeLessThan(1e-3 * trace);
    expect(await hessianTrace({ loss, probes: 4, seed: 2 }).score(unit)).toBe(mean);
  });

  it('scores 0 for a saddle, and refuses weights that are all zero', async () => {
    const negative = (changes: ReadonlyMap<string, Float32Array>): number => -loss(changes);
    expect(await hessianTrace({ loss: negative, probes: 2 }).score(unit)).toBe(0);
    const tensors = unit.tensors.map((each) => ({ ...each, values: new Float32Array(8192) }));
    await expect(estimateHessianTrace({ ...unit, tensors }, { loss })).rejects.toThrow(/all zero/);
  });
});

describe('checklist 15: cached scores', () => {
  it('are computed once for the same weights and options, in another process too', async () => {
    let runs = 0;
    const scorer = {
      name: 'mine',
      score: () => {
        runs += 1;
        return runs;
      },
    };
    const store = new Map<string, number>();
    const cached = cachedScorer(scorer, store, 'seed 1');
    const unit = expert('e', 1, 1);
    expect([await cached.score(unit), await cached.score(expert('e', 1, 1))]).toEqual([1, 1]);
    const saved = new Map(JSON.parse(JSON.stringify([...store])) as [string, number][]);
    expect(await cachedScorer(scorer, saved, 'seed 1').score(unit)).toBe(1);
    expect(runs).toBe(1);
  });

  it('are computed anew where anything that they depend on differs by a bit', async () => {
    const unit = expert('e', 1, 1);
    const [first, ...rest] = unit.tensors;
    if (first === undefined) throw new Error('no tensor');
    const flipped = first.values.slice();
    flipped[77] = Math.fround((flipped[77] ?? 0) * (1 + 2 ** -22));
    const ones = new Float32Array(128).fill(1);
    const units: LoadedUnit[] = [
      unit,
      { ...unit, tensors: [{ ...first, values: flipped }, ...rest] },
      { ...unit, tensors: [{ ...first, importance: ones }, ...rest] },
      { ...unit, tensors: [{ ...first, moments: new Float64Array(64) }, ...rest] },
      { ...unit, tensors: [{ ...first, rows: 128, columns: 64 }, ...rest] },
      { ...unit, tensors: [{ ...first, name: 'other' }, ...rest] },
      { ...unit, id: 'f' },
    ];
    const keys = await Promise.all(units.map((each) => unitDigest(each, 'a')));
    keys.push(await unitDigest(unit, 'b'));
    expect(new Set(keys).size).toBe(units.length + 1);
    const broken = cachedScorer(mopeq(), { get: () => NaN, set: () => undefined });
    await expect(broken.score(unit)).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});

describe('checklist 12: rank correlation', () => {
  it('is 1 in order, -1 against it, shares ranks of ties, 0 without an order', () => {
    expect(rankCorrelation([1, 5, 7], [10, 11, 900])).toBe(1);
    expect(rankCorrelation([1, 5, 7], [3, 2, 1])).toBe(-1);
    expect(rankCorrelation([1, 1, 2, 3], [1, 2, 3, 4])).toBeCloseTo(0.9487, 4);
    expect(rankCorrelation([4, 4, 4], [1, 2, 3])).toBe(0);
    expect(() => rankCorrelation([1], [1, 2])).toThrow(/1 scores, 2 errors/);
  });

  it('reports scores best first', () => {
    const scores = new Map([
      ['bad', [3, 2, 1]],
      ['good', [1, 2, 3]],
    ]);
    const report = correlationReport(scores, [0.1, 0.2, 0.3]);
    expect(report.map(({ score }) => score)).toEqual(['good', 'bad']);
  });
});
