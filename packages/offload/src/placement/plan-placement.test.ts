/** Plans fit, never beat the linear program, and match an exhaustive search where one is cheap. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { passMs, totalMs, workloadCost } from './cost.js';
import {
  kindSizes,
  PLACEMENT_TIERS,
  streamingBytes,
  type InferenceMachine,
  type InferenceModel,
} from './inference.js';
import { planPlacement, type Placement, type PlacementResult } from './plan-placement.js';
import { toShares, unitBytes, type Units } from './units.js';

const machine: InferenceMachine = {
  name: 'made up',
  deviceOperationsPerSecond: 10e12,
  deviceBytesPerSecond: 400e9,
  uploadBytesPerSecond: 10e9,
  downloadBytesPerSecond: 8e9,
  storageBytesPerSecond: 2e9,
  queue: 'single',
};
const mixtral: InferenceModel = {
  layers: 32,
  frameBytes: 300e6,
  layerBytes: 30e6,
  experts: 8,
  expertsPerToken: 2,
  expertBytes: 90e6,
  kvBytesPerToken: 131_072,
  activeParameters: 12.9e9,
};
const dense: InferenceModel = {
  ...mixtral,
  experts: 0,
  expertsPerToken: 0,
  expertBytes: 0,
  layerBytes: 120e6,
};
const workload = { batch: 1, promptTokens: 512, outputTokens: 128 };

function placed(result: PlacementResult): Placement {
  if ('infeasible' in result) throw new Error(JSON.stringify(result));
  return result;
}

describe('planPlacement', () => {
  it('keeps everything on a device that holds it, with no memory for streaming', () => {
    const plan = placed(planPlacement(dense, { workload, machine, budgets: { device: 8e9 } }));
    expect(plan.shares.weights.device).toBe(1);
    expect(plan.streaming).toBe('none');
    expect(plan.predicted.decodeBound).toBe('compute');
    expect(plan.predicted.totalMs).toBeCloseTo(plan.lowerBoundMs, 6);
  });

  it('splits a dense model over device and host; weights before KV, which starts short', () => {
    const plan = placed(planPlacement(dense, { workload, machine, budgets: { device: 2e9 } }));
    expect(plan.bytes.device).toBeLessThanOrEqual(2e9);
    expect(plan.streaming).toBe('double-buffered');
    const room = 2e9 - 300e6 - 360e6;
    const layers = Math.floor(room / 120e6);
    const block = 16 * 131_072;
    const blocks = Math.floor((room - layers * 120e6) / block);
    expect(plan.units.weights).toEqual({ device: layers, host: 32 - layers, storage: 0 });
    expect(plan.units.kv).toEqual({ device: blocks, host: 40 - blocks, storage: 0 });
    expect(plan.predicted.decodeBound).toBe('link');
    // By hand: what is away goes over the link, beside what the device reads in any case.
    const context = (512 + 64) * 131_072;
    const away = 1 - blocks / 40;
    const link = 12 * (32 - layers) + away * (context / 10e6 + 131_072 / 8e6);
    const read = 300e6 + 32 * 120e6 + context;
    expect(1e3 / plan.predicted.decodeTokensPerSecond).toBeCloseTo(link + read / 400e6, 6);
  });

  it('keeps dense weights rather than experts, which one token reads a quarter of', () => {
    const plan = placed(planPlacement(mixtral, { workload, machine, budgets: { device: 8e9 } }));
    const { weights, experts } = plan.shares;
    expect(weights.device).toBe(1);
    expect(experts.device).toBeGreaterThan(0);
    expect(experts.device).toBeLessThan(1);
  });

  it('goes to storage where the host is small, and says which lane waits', () => {
    const budgets = { device: 4e9, host: 4e9 };
    const plan = placed(planPlacement(mixtral, { workload, machine, budgets }));
    expect(plan.shares.experts.storage).toBeGreaterThan(0.5);
    expect(plan.predicted.decodeBound).toBe('storage');
    expect(plan.bytes.host).toBeLessThanOrEqual(4e9);
  });

  it('evaluates shares that are given', () => {
    const half = { device: 0.5, host: 0.5, storage: 0 };
    const plan = placed(planPlacement(dense, { workload, machine, fix: { weights: half } }));
    expect(plan.units.weights).toEqual({ device: 16, host: 16, storage: 0 });
    expect(plan.shares.kv.device).toBe(1);
    const all = { device: 1, host: 0, storage: 0 };
    const result = planPlacement(dense, {
      workload,
      machine,
      budgets: { device: 2e9 },
      fix: { weights: all },
    });
    if (!('infeasible' in result)) throw new Error('it cannot fit');
    expect(result.infeasible[0]).toMatchObject({ tier: 'device' });
  });

  it('has a bound below the plan where given shares are no whole units', () => {
    // Of 40 blocks 20, none and 20; or 20, 19 and 1.
    const some = { device: 0.5, host: 0.01, storage: 0.49 };
    const most = { device: 0.5, host: 0.49, storage: 0.01 };
    for (const [host, kv] of [
      [0, some],
      [1e9, some],
      [1e9, most],
    ] as const) {
      const options = { workload, machine, budgets: { host }, fix: { kv } };
      const plan = placed(planPlacement({ ...dense, layers: 2 }, options));
      expect(plan.lowerBoundMs).toBeLessThanOrEqual(plan.predicted.totalMs * (1 + 1e-6));
    }
  });

  it('says how many bytes are missing, and with them it fits', () => {
    const ask = (budgets: { device: number; host: number; storage: number }) =>
      planPlacement(dense, { workload, machine, budgets });
    const budgets = { device: 1e9, host: 1e9, storage: 0 };
    const short = ask(budgets);
    if (!('infeasible' in short)) throw new Error('3.8 GB do not fit 2 GB');
    const [first] = short.infeasible;
    expect(first?.tier).toBe('host');
    const host = budgets.host + (first?.missingBytes ?? 0);
    expect(ask({ ...budgets, host })).toHaveProperty('units');
    const tiny = ask({ device: 1e6, host: Infinity, storage: Infinity });
    if (!('infeasible' in tiny)) throw new Error('the frame does not fit');
    const missing = 300e6 + streamingBytes(dense, 'single-buffered') - 1e6;
    expect(tiny.infeasible).toContainEqual({ tier: 'device', missingBytes: missing });
  });

  it('names a tier once, with all that it lacks', () => {
    const short = (device: number) => {
      const budgets = { device, host: 0, storage: 0 };
      const result = planPlacement(dense, { workload, machine, budgets });
      if (!('infeasible' in result)) throw new Error('it cannot fit');
      expect(result.infeasible.map(({ tier }) => tier)).toEqual(['device']);
      return result.infeasible[0]?.missingBytes ?? 0;
    };
    // The frame alone exceeds the first budget.
    expect(short(1e6) - short(500e6)).toBe(499e6);
    const budgets = { device: 1e6 + short(1e6), host: 0, storage: 0 };
    expect(placed(planPlacement(dense, { workload, machine, budgets })).units.weights.device).toBe(
      32,
    );
  });

  it('refuses what makes no sense', () => {
    const bad = (options: object) => () =>
      planPlacement(dense, { workload, machine, ...options } as never);
    const invalid = expect.objectContaining({ code: 'invalid-argument' });
    expect(bad({ budgets: { device: -1 } })).toThrow(invalid);
    expect(bad({ fix: { kv: { device: 0.5, host: 0, storage: 0 } } })).toThrow(invalid);
    expect(bad({ workload: { ...workload, batch: 0 } })).toThrow(invalid);
    expect(bad({ machine: { ...machine, uploadBytesPerSecond: 0 } })).toThrow(invalid);
  });
});

const models = fc.record({
  layers: fc.integer({ min: 1, max: 5 }),
  frameBytes: fc.integer({ min: 0, max: 1000 }),
  layerBytes: fc.integer({ min: 1, max: 1000 }),
  experts: fc.integer({ min: 1, max: 2 }),
  expertsPerToken: fc.constant(1),
  expertBytes: fc.integer({ min: 1, max: 500 }),
  kvBytesPerToken: fc.integer({ min: 1, max: 50 }),
  activeParameters: fc.constant(1000),
});

it('fits the budgets, stays above the bound, and is near the best of all whole plans', () => {
  fc.assert(
    fc.property(
      models,
      fc.record({
        device: fc.integer({ min: 0, max: 20_000 }),
        host: fc.integer({ min: 0, max: 8000 }),
        storage: fc.integer({ min: 0, max: 8000 }),
      }),
      fc.constantFrom('single' as const, 'streams' as const),
      (model, budgets, queue) => {
        const asked = { batch: 1, promptTokens: 16, outputTokens: 16 };
        const on = { ...machine, queue, deviceBytesPerSecond: 20e9 };
        const result = planPlacement(model, { workload: asked, machine: on, budgets });
        const best = exhaustive(model, asked, on, budgets);
        if ('infeasible' in result) {
          const raised = { ...budgets };
          for (const { tier, missingBytes } of result.infeasible) {
            expect(missingBytes).toBeGreaterThan(0);
            raised[tier] += missingBytes;
          }
          const next = planPlacement(model, { workload: asked, machine: on, budgets: raised });
          expect(next).toHaveProperty('units');
          // Whole units may need a shuffle that neither search makes; bytes alone must be tight.
          if (best !== undefined) expect(best.slackBytes).toBeLessThan(2500);
          return;
        }
        for (const tier of PLACEMENT_TIERS) {
          expect(result.bytes[tier]).toBeLessThanOrEqual(budgets[tier]);
        }
        const { totalMs: ms } = result.predicted;
        expect(ms).toBeGreaterThanOrEqual(result.lowerBoundMs * (1 - 1e-6));
        expect(ms).toBeGreaterThanOrEqual((best?.ms ?? NaN) * (1 - 1e-9));
        // A unit of each kind on the wrong side is the most that rounding costs.
        const cost = workloadCost(model, asked, on, 'single-buffered');
        const unit = ([cost.prefill, cost.decode] as const).reduce((sum, pass) => {
          const one = { device: 0, host: 0, storage: 1 };
          const all = passMs(pass, { weights: one, experts: one, kv: one }, queue).ms;
          return sum + (pass.count * all) / Math.min(model.layers, 2);
        }, 0);
        expect(ms - (best?.ms ?? 0)).toBeLessThanOrEqual(unit);
      },
    ),
    { numRuns: 60 },
  );
});

/** The fastest of all plans of whole units, by trying each. */
function exhaustive(
  model: InferenceModel,
  asked: typeof workload,
  on: InferenceMachine,
  budgets: { device: number; host: number; storage: number },
): { ms: number; slackBytes: number } | undefined {
  const sizes = kindSizes(model, asked);
  const splits = (count: number) => {
    const all = [];
    for (let device = 0; device <= count; device++) {
      for (let host = 0; device + host <= count; host++) {
        all.push({ device, host, storage: count - device - host });
      }
    }
    return all;
  };
  let best: { ms: number; slackBytes: number } | undefined;
  for (const weights of splits(model.layers)) {
    for (const experts of splits(model.layers * model.experts)) {
      for (const kv of splits(2)) {
        const units: Units = { weights, experts, kv };
        const away = weights.device < model.layers || experts.host + experts.storage > 0;
        for (const streaming of ['none', 'single-buffered', 'double-buffered'] as const) {
          if (away === (streaming === 'none')) continue;
          const bytes = unitBytes(sizes, units);
          bytes.device += model.frameBytes + streamingBytes(model, streaming);
          if (PLACEMENT_TIERS.some((tier) => bytes[tier] > budgets[tier])) continue;
          const cost = workloadCost(model, asked, on, streaming);
          const ms = totalMs(cost, toShares(sizes, units));
          const slackBytes = PLACEMENT_TIERS.reduce((sum, t) => sum + budgets[t] - bytes[t], 0);
          if (best === undefined || ms < best.ms) best = { ms, slackBytes };
        }
      }
    }
  }
  return best;
}
