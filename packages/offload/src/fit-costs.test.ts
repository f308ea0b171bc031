/** Costs fitted to the updates of a known machine are that machine's. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RIG_PLANS, rigSchedule, type RigPlan } from './calibration-rig.js';
import { addTimes, fitCosts, fitRates, type SizeTimes } from './fit-costs.js';
import { costOf, deepOptimizerStates, perLane, simulate, type Machine } from './index.js';

const SIZES = [64 * 1024, 256 * 1024];
const SUBGROUPS = 12;
const DTYPE = 'bf16';

/** Rates that the curves take the place of. */
const ALONE: Machine = {
  name: 'known',
  cpuAdamParamsPerSecond: 1e9,
  castParamsPerSecond: 1e9,
  upcastParamsPerSecond: 1e9,
  gpuAdamParamsPerSecond: 1e9,
  uploadBytesPerSecond: 1e9,
  downloadBytesPerSecond: 1e9,
  hostBytesPerSecond: 1e10,
  latencyMs: perLane(0),
  queue: 'single',
  hostThreads: 'shared',
};

const cost = fc.record({
  fixed: fc.double({ min: 0.01, max: 0.3, noNaN: true }),
  perMega: fc.double({ min: 0.5, max: 20, noNaN: true }),
});
const curve = cost.map(({ fixed, perMega }) =>
  SIZES.map((params) => ({ params, ms: fixed + (perMega * params) / 1e6 })),
);
const machines: fc.Arbitrary<Machine> = fc
  .record({
    adam: curve,
    cast: curve,
    push: curve,
    stageIn: curve,
    gpuAdam: curve,
    stageOut: curve,
    residentAdam: curve,
    queue: fc.double({ min: 1, max: 2, noNaN: true }),
    host: fc.double({ min: 1, max: 2, noNaN: true }),
    endMs: fc.double({ min: 0, max: 0.2, noNaN: true }),
  })
  .map(({ queue, host, endMs, ...curves }) => ({
    ...{ ...ALONE, curves, endMs, contention: { queue, host } },
  }));

const handover = fc.double({ min: 0, max: 0.2, noNaN: true });

/** `machine` with threads that are `handoverMs` late. */
function lateBy(handoverMs: number, machine: Machine): Machine {
  const adam = machine.curves?.adam ?? [];
  const late = adam.map(({ params, ms }) => ({ params, ms: ms + handoverMs }));
  return { ...machine, curves: { ...machine.curves, adam: late } };
}

/** What a calibration of `machine` would take, with threads that are `handoverMs` late. */
function timesOf(machine: Machine, handoverMs: number): SizeTimes[] {
  const late = lateBy(handoverMs, machine);
  return SIZES.map((size) => {
    const shape = { size, subgroups: SUBGROUPS, parameterDType: DTYPE } as const;
    const update = (plan: RigPlan): number[] => [
      simulate(rigSchedule(plan, shape).operations, late).totalMs,
    ];
    const alone = (name: keyof NonNullable<Machine['curves']>): number[] => [
      costOf(machine.curves?.[name] ?? [], size),
    ];
    return {
      ...{ size, subgroups: SUBGROUPS, endMs: [machine.endMs ?? 0] },
      operations: {
        adam: alone('adam'),
        cast: alone('cast'),
        push: alone('push'),
        stageIn: alone('stageIn'),
        gpuAdam: alone('gpuAdam'),
        stageOut: alone('stageOut'),
      },
      updates: {
        host: update('host'),
        streamed: update('streamed'),
        resident: update('resident'),
        mixed: update('mixed'),
        sparse: update('sparse'),
      },
    };
  });
}

describe('fitted costs', () => {
  it('predict the updates that they were fitted to', { timeout: 120_000 }, () => {
    fc.assert(
      fc.property(machines, handover, (machine, late) => {
        const times = timesOf(machine, late);
        const { curves, endMs, contention } = fitCosts(times, ALONE, DTYPE);
        for (const [at, { size, subgroups, updates }] of times.entries()) {
          const own = contention[at];
          expect(own?.size).toBe(size);
          const { queue = NaN, host = NaN } = own ?? {};
          const fitted = { ...ALONE, curves, endMs, contention: { queue, host } };
          for (const plan of RIG_PLANS) {
            const shape = { size, subgroups, parameterDType: DTYPE } as const;
            const { totalMs } = simulate(rigSchedule(plan, shape).operations, fitted);
            // The factor of host and queue is one of hundredths.
            const most = plan === 'resident' || plan === 'streamed' ? 0.001 : 0.04;
            expect(Math.abs(totalMs / (updates[plan][0] ?? NaN) - 1)).toBeLessThan(most);
          }
        }
      }),
      { numRuns: 12 },
    );
  });

  it('predict plans that they have not seen', () => {
    const stride = fc.integer({ min: 3, max: 6 });
    fc.assert(
      fc.property(machines, handover, stride, (machine, handoverMs, stride) => {
        const [times, other] = timesOf(machine, handoverMs);
        if (times === undefined || other === undefined) throw new Error('two sizes were measured');
        const costs = fitCosts([times, other], ALONE, DTYPE);
        const [{ queue = NaN, host = NaN } = {}] = costs.contention;
        const fitted = { ...ALONE, ...costs, contention: { queue, host } };
        const layout = { parameterCount: 20 * 65_536, subgroupSize: 65_536 };
        const { operations } = deepOptimizerStates(
          { ...layout, parameterDType: DTYPE },
          { stride },
        );
        const known = lateBy(handoverMs, machine);
        const ratio = simulate(operations, fitted).totalMs / simulate(operations, known).totalMs;
        expect(Math.abs(ratio - 1)).toBeLessThan(0.1);
      }),
      { numRuns: 12 },
    );
  });

  it('take the least of both calibrations where two are joined', () => {
    const [once] = timesOf({ ...ALONE, curves: {}, contention: { queue: 1, host: 1 } }, 0);
    if (once === undefined) throw new Error('a size was measured');
    const slow: SizeTimes = { ...once, updates: { ...once.updates, resident: [1e3] } };
    const joined = addTimes(slow, once);
    expect(joined.updates.resident).toEqual([1e3, ...once.updates.resident]);
    expect(joined.operations.push).toHaveLength(2);
    const [fast, merged] = [[once], [joined]].map((times) => fitCosts(times, ALONE, DTYPE));
    expect(merged).toEqual(fast);
    expect(fitRates([once], DTYPE).adam.perSecond).toBeGreaterThan(0);
  });
});

it('costs between sizes lie on a line, below and above them in proportion', () => {
  const points = [
    { params: 100, ms: 2 },
    { params: 200, ms: 3 },
    { params: 400, ms: 7 },
  ];
  const asked = [50, 100, 150, 300, 400, 800];
  expect(asked.map((params) => costOf(points, params))).toEqual([1.5, 2, 2.5, 5, 7, 14]);
  expect(costOf(points.slice(0, 1), 50)).toBe(1);
  expect(costOf([], 50)).toBe(0);
});
