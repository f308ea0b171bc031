/** Laws of plans and of the simulator over random layouts, strides, ratios and machines. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  auto,
  buildIteration,
  checkSchedule,
  deepOptimizerStates,
  gpuOnly,
  H100_NODE,
  LANES,
  perLane,
  periodMsPerParam,
  simulate,
  SUBGROUP_GRANULE,
  twinFlow,
  zeroOffload,
  type Machine,
  type Schedule,
  type StateLayout,
} from './index.js';

const rate = fc.double({ min: 1e6, max: 1e12, noNaN: true });
const machines: fc.Arbitrary<Machine> = fc.record({
  name: fc.constant('random'),
  cpuAdamParamsPerSecond: rate,
  castParamsPerSecond: rate,
  upcastParamsPerSecond: rate,
  gpuAdamParamsPerSecond: rate,
  uploadBytesPerSecond: rate,
  downloadBytesPerSecond: rate,
  hostBytesPerSecond: rate,
  latencyMs: fc.double({ min: 0, max: 1, noNaN: true }).map(perLane),
  queue: fc.constantFrom('single' as const, 'streams' as const),
  hostThreads: fc.constantFrom('shared' as const, 'apart' as const),
});
const dtype = fc.constantFrom('f32' as const, 'f16' as const, 'bf16' as const);
const layouts: fc.Arbitrary<StateLayout> = fc.record({
  parameterCount: fc.integer({ min: 1, max: 300_000 }),
  subgroupSize: fc.integer({ min: 1, max: 40_000 }),
  parameterDType: dtype,
  flushDType: dtype,
  slots: fc.integer({ min: 1, max: 3 }),
  atomic: fc.boolean(),
});
const options = fc.record({
  stride: fc.oneof(fc.integer({ min: 1, max: 9 }), fc.constant(Infinity)),
  ratio: fc.double({ min: 0, max: 1, noNaN: true }),
  residents: fc.constantFrom('head' as const, 'tail' as const),
});
const schedules = fc.tuple(layouts, options).map(([layout, o]) => deepOptimizerStates(layout, o));

describe('a schedule', () => {
  it('cuts the state without gap, updates each subgroup once, and survives JSON', () => {
    fc.assert(
      fc.property(schedules, (schedule) => {
        checkSchedule(schedule);
        expect(JSON.parse(JSON.stringify(schedule))).toEqual(schedule);
        const { subgroups, layout } = schedule;
        for (const { start } of subgroups) expect(start % SUBGROUP_GRANULE).toBe(0);
        const resident = subgroups.filter(({ site }) => site === 'resident');
        const params = resident.reduce((sum, { count }) => sum + count, 0);
        expect(schedule.effective.ratio).toBeCloseTo(1 - params / layout.parameterCount, 12);
      }),
    );
  });

  it('streams every k-th movable subgroup and keeps residents at the named end', () => {
    const layout = { parameterCount: 10 * 1024, subgroupSize: 1024 };
    const sites = (schedule: Schedule): string =>
      schedule.subgroups.map(({ site }) => site[0]).join('');
    const plan = deepOptimizerStates(layout, { stride: 3, ratio: 0.7 });
    expect(sites(plan)).toBe('hhshhshrrr');
    expect(sites(deepOptimizerStates(layout, { stride: 2, ratio: 0.5, residents: 'head' }))).toBe(
      'rrrrrhshsh',
    );
    expect(sites(deepOptimizerStates(layout, { stride: Infinity }))).toBe('hhhhhhhhhh');
    expect(sites(twinFlow(layout, { ratio: 0.25 }))).toBe('hhrrrrrrrr');
    expect(twinFlow(layout, { ratio: 0.25 }).effective.ratio).toBe(0.2);
    expect(sites(gpuOnly(layout))).toBe('rrrrrrrrrr');
    expect(sites(zeroOffload(layout))).toBe('hhhhhhhhhh');
  });

  it('refuses strides and ratios that mean nothing', () => {
    const layout = { parameterCount: 10, subgroupSize: 4 };
    const invalid = expect.objectContaining({ code: 'invalid-argument' });
    for (const stride of [0, -1, 1.5, NaN]) {
      expect(() => deepOptimizerStates(layout, { stride })).toThrow(invalid);
    }
    expect(() => deepOptimizerStates(layout)).toThrow(invalid);
    expect(() => twinFlow(layout, { ratio: 1.1 })).toThrow(invalid);
    expect(() => zeroOffload({ parameterCount: 0, subgroupSize: 4 })).toThrow(invalid);
  });
});

describe('the simulator', () => {
  it('keeps lanes and dependencies, and lies between the busiest lane and the sum', () => {
    fc.assert(
      fc.property(schedules, machines, ({ operations }, machine) => {
        const { spans, totalMs, busyMs } = simulate(operations, machine);
        const slack = 1e-6 * totalMs + 1e-9;
        const free = new Map<string, number>();
        operations.forEach(({ lane, after }, id) => {
          const { startMs = NaN, endMs = NaN } = spans[id] ?? {};
          expect(startMs).toBeGreaterThanOrEqual((free.get(lane) ?? 0) - slack);
          for (const each of after) {
            expect(startMs).toBeGreaterThanOrEqual((spans[each]?.endMs ?? NaN) - slack);
          }
          free.set(lane, endMs);
        });
        const busiest = Math.max(...LANES.map((lane) => busyMs[lane]));
        const sum = LANES.reduce((total, lane) => total + busyMs[lane], 0);
        expect(totalMs).toBeGreaterThanOrEqual(busiest - slack);
        expect(totalMs).toBeLessThanOrEqual(sum + slack);
        if (machine.queue === 'single') {
          expect(busyMs.upload + busyMs.download + busyMs.gpu).toBeLessThanOrEqual(totalMs + slack);
        }
      }),
    );
  });

  it('approaches the closed form as subgroups get many', () => {
    fc.assert(
      fc.property(machines, fc.integer({ min: 1, max: 6 }), (machine, stride) => {
        const smooth = { ...machine, latencyMs: perLane(0), hostBytesPerSecond: 1e15 };
        const layout = { parameterCount: 1024 * 60 * 8, subgroupSize: 1024, slots: 4 };
        const { operations } = deepOptimizerStates(
          { ...layout, parameterDType: 'bf16' },
          { stride },
        );
        const actual = simulate(operations, smooth).totalMs / layout.parameterCount;
        const bound = periodMsPerParam(stride, smooth, 2);
        // The closed form is a lower bound up to rounding; two rings and the ends cost at most
        // twice.
        expect(actual).toBeGreaterThanOrEqual(bound * 0.999);
        expect(actual).toBeLessThanOrEqual(bound * 3);
      }),
      { numRuns: 30 },
    );
  });

  it('lets a bottleneck of host memory slow everything that uses it', () => {
    const { operations } = zeroOffload({ parameterCount: 4096, subgroupSize: 1024 });
    const lanes = { queue: 'streams', hostThreads: 'apart' } as const;
    const base = { ...lanes, latencyMs: perLane(0), name: 'm' };
    const fast = 1e15;
    const machine: Machine = {
      ...base,
      cpuAdamParamsPerSecond: fast,
      castParamsPerSecond: fast,
      upcastParamsPerSecond: fast,
      gpuAdamParamsPerSecond: fast,
      uploadBytesPerSecond: fast,
      downloadBytesPerSecond: fast,
      hostBytesPerSecond: 1e6,
    };
    // 28 bytes of Adam and 4 of the push, per parameter, over 1 MB/s.
    expect(simulate(operations, machine).totalMs).toBeCloseTo((4096 * 32) / 1e3, 6);
  });
});

describe('auto', () => {
  it('never takes longer than any plan within its budgets, and stays within them', () => {
    fc.assert(
      fc.property(
        layouts,
        machines,
        options,
        fc.double({ min: 0.2, max: 1, noNaN: true }),
        (...given) => {
          const [layout, machine, other, share] = given;
          const deviceBytes = Math.floor(gpuOnly(layout).footprint.deviceBytes * share);
          const plan = auto(layout, { machine, budgets: { deviceBytes }, ratios: [0, 0.5, 1] });
          const rival = deepOptimizerStates(layout, { ...other, ratio: 1 });
          const fits = rival.footprint.deviceBytes + rival.footprint.stagingBytes <= deviceBytes;
          if ('infeasible' in plan) {
            expect(plan.infeasible.deviceBytes).toBeGreaterThan(0);
            expect(fits && (other.stride <= 8 || other.stride === Infinity)).toBe(false);
            return;
          }
          const { deviceBytes: device, stagingBytes } = plan.schedule.footprint;
          expect(device + stagingBytes).toBeLessThanOrEqual(deviceBytes);
          if (fits && other.stride <= 8) {
            const rivalMs = simulate(buildIteration(rival).operations, machine).totalMs;
            expect(plan.predictedMs).toBeLessThanOrEqual(rivalMs * (1 + 1e-9));
          }
        },
      ),
      { numRuns: 40 },
    );
  });

  it('says what is missing, and refuses budgets that mean nothing', () => {
    const layout = { parameterCount: 10_000, subgroupSize: 1024 };
    const machine = H100_NODE;
    const need = zeroOffload(layout).footprint;
    const plan = auto(layout, { machine, budgets: { deviceBytes: 0, hostBytes: need.hostBytes } });
    const missing = need.deviceBytes + need.stagingBytes;
    expect(plan).toMatchObject({ infeasible: { planner: 'zeroOffload', hostBytes: 0 } });
    expect('infeasible' in plan && plan.infeasible.deviceBytes).toBeLessThanOrEqual(missing);
    const { hostBytes } = gpuOnly(layout).footprint;
    const lean = auto(layout, { machine, budgets: { hostBytes } });
    expect('schedule' in lean && lean.schedule.footprint.hostBytes).toBe(hostBytes);
    for (const deviceBytes of [-1, NaN]) {
      expect(() => auto(layout, { machine, budgets: { deviceBytes } })).toThrow();
    }
  });
});
