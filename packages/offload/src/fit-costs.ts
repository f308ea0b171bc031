/**
 * From the times that a calibration took to the costs that the simulator works with.
 *
 * What an operation takes alone is not what it takes in an update: threads wait to be told, copies
 * run while kernels do, and where a driver computes on the CPU all want the same cores. So five
 * whole updates are run for each subgroup size, and the simulator is brought to say of them what
 * they took:
 *
 * 1. resident subgroups only: the cost of Adam on them, the time divided by their number;
 * 2. streamed ones only: how the queue's operations slow each other, `Contention.queue`;
 * 3. host subgroups only: what handing over between threads adds to Adam there, for each factor by
 *    which pushes may slow it;
 * 4. those, and host and streamed ones, in turn and one streamed for several: how host and queue
 *    slow each other, `Contention.host`. It shows where both have about as much to do, and of two
 *    plans one is nearer to that, so the factor is the one with which all come out best.
 *
 * Factors are the middle ones over sizes; costs stay by size.
 */
import { rigSchedule, type RigPlan, type TimedOperation } from './calibration-rig.js';
import { fitRate, type CalibratedRate } from './fit-rate.js';
import { costOf, type Contention, type CostName, type Machine } from './machine.js';
import type { Schedule, StateDType } from './schedule.js';
import { simulate } from './simulate.js';

/** Times of one subgroup size, milliseconds, a number per run. */
export interface SizeTimes {
  /** Parameters of a subgroup. */
  readonly size: number;
  readonly subgroups: number;
  /** Of single operations: means over all subgroups. */
  readonly operations: Readonly<Record<TimedOperation, readonly number[]>>;
  /** Of whole updates. */
  readonly updates: Readonly<Record<RigPlan, readonly number[]>>;
  /** Until the host knew that the queue had done nothing. */
  readonly endMs: readonly number[];
}

/** What operations of one size cost each other. */
export interface SizeContention extends Contention {
  /** Parameters of a subgroup. */
  readonly size: number;
}

const least = (values: readonly number[]): number => Math.min(...values);

/** The runs of both. */
export function addTimes(a: SizeTimes, b: SizeTimes): SizeTimes {
  const { operations: ours, updates } = a;
  const { operations: theirs } = b;
  return {
    ...a,
    operations: {
      adam: [...ours.adam, ...theirs.adam],
      cast: [...ours.cast, ...theirs.cast],
      push: [...ours.push, ...theirs.push],
      stageIn: [...ours.stageIn, ...theirs.stageIn],
      gpuAdam: [...ours.gpuAdam, ...theirs.gpuAdam],
      stageOut: [...ours.stageOut, ...theirs.stageOut],
    },
    updates: {
      host: [...updates.host, ...b.updates.host],
      streamed: [...updates.streamed, ...b.updates.streamed],
      resident: [...updates.resident, ...b.updates.resident],
      mixed: [...updates.mixed, ...b.updates.mixed],
      sparse: [...updates.sparse, ...b.updates.sparse],
    },
    endMs: [...a.endMs, ...b.endMs],
  };
}

function residentMs({ updates, subgroups, endMs }: SizeTimes): number[] {
  return updates.resident.map((ms) => Math.max(0, ms - least(endMs)) / subgroups);
}

/** Lines through the sizes: bytes for what moves, parameters for the rest, a second. */
export function fitRates(
  measured: readonly SizeTimes[],
  dtype: StateDType,
): Readonly<Record<CostName, CalibratedRate>> {
  const fit = (perParam: number, ms: (times: SizeTimes) => readonly number[]): CalibratedRate =>
    // An operation that plans of this type have not takes no time: any rate will do.
    fitRate(
      measured.map((times) => ({
        work: perParam * times.size,
        ms: ms(times).map((each) => Math.max(each, 1e-6)),
      })),
    );
  return {
    adam: fit(1, ({ operations }) => operations.adam),
    cast: fit(1, ({ operations }) => operations.cast),
    push: fit(dtype === 'f32' ? 4 : 2, ({ operations }) => operations.push),
    stageIn: fit(12, ({ operations }) => operations.stageIn),
    stageOut: fit(12, ({ operations }) => operations.stageOut),
    gpuAdam: fit(1, ({ operations }) => operations.gpuAdam),
    residentAdam: fit(1, residentMs),
  };
}

/** The factor in 1 to 4 with which `predict`, which rises with it, comes closest to `ms`. */
function solveFactor(ms: number, predict: (factor: number) => number): number {
  let [low, high] = [1, 4];
  for (let halving = 0; halving < 20; halving++) {
    const middle = (low + high) / 2;
    if (predict(middle) < ms) low = middle;
    else high = middle;
  }
  return low;
}

/** The factor in 1 to 4 for which `error` is least: by tenths, then by hundredths around it. */
function bestFactor(error: (factor: number) => number): number {
  const best = (factors: readonly number[]): number => {
    const errors = factors.map(error);
    return factors[errors.indexOf(Math.min(...errors))] ?? 1;
  };
  const near = best(Array.from({ length: 31 }, (_, at) => 1 + at / 10));
  const around = Array.from({ length: 21 }, (_, at) => near + (at - 10) / 100);
  return best(around.filter((factor) => factor >= 1));
}

/** Adds curves, contention and the final wait to a machine's rates; see the head of this file. */
export function fitCosts(
  measured: readonly SizeTimes[],
  alone: Machine,
  parameterDType: StateDType,
): Required<Pick<Machine, 'curves' | 'endMs'>> & {
  readonly contention: readonly SizeContention[];
} {
  const endMs = least(measured.flatMap((times) => times.endMs));
  const curve = (ms: (times: SizeTimes) => number) =>
    measured.map((times) => ({ params: times.size, ms: ms(times) }));
  const operation = (name: TimedOperation) => curve(({ operations }) => least(operations[name]));
  const curves = {
    adam: operation('adam'),
    cast: operation('cast'),
    push: operation('push'),
    stageIn: operation('stageIn'),
    gpuAdam: operation('gpuAdam'),
    stageOut: operation('stageOut'),
    residentAdam: curve((times) => least(residentMs(times))),
  };
  const plans = new Map<string, Schedule>();
  const predict = (plan: RigPlan, times: SizeTimes, machine: Machine): number => {
    const key = `${plan} ${times.size} ${times.subgroups}`;
    const schedule = plans.get(key) ?? rigSchedule(plan, { ...times, parameterDType });
    plans.set(key, schedule);
    return simulate(schedule.operations, machine).totalMs;
  };
  const base: Machine = { ...alone, curves, endMs };
  const adamMs = (machine: Machine, size: number) => costOf(machine.curves?.adam ?? [], size);
  const fitted = measured.map((times) => {
    const { size, updates } = times;
    const queue = solveFactor(least(updates.streamed), (factor) =>
      predict('streamed', times, { ...base, contention: { queue: factor, host: 1 } }),
    );
    // Where pushes hide a part of what is added, the first addition is short of what is missing.
    const handed = (host: number): Machine => {
      let machine: Machine = { ...base, contention: { queue, host } };
      for (let addition = 0; addition < 3; addition++) {
        const missing = least(updates.host) - predict('host', times, machine);
        const ms = adamMs(machine, size) + Math.max(0, missing) / times.subgroups;
        machine = { ...machine, curves: { ...curves, adam: [{ params: size, ms }] } };
      }
      return machine;
    };
    const host = bestFactor((factor) => {
      const machine = handed(factor);
      return (['host', 'mixed', 'sparse'] as const).reduce((sum, plan) => {
        return sum + Math.log(predict(plan, times, machine) / least(updates[plan])) ** 2;
      }, 0);
    });
    const adam = { params: size, ms: adamMs(handed(host), size) };
    return { adam, contention: { size, queue, host } };
  });
  const adam = fitted.map((each) => each.adam);
  const contention = fitted.map((each) => each.contention);
  return { curves: { ...curves, adam }, endMs, contention };
}

/** The middle factors over sizes. */
export function middleContention(contention: readonly SizeContention[]): Contention {
  const middle = (values: readonly number[]): number =>
    [...values].sort((a, b) => a - b)[values.length >> 1] ?? 1;
  return {
    queue: middle(contention.map(({ queue }) => queue)),
    host: middle(contention.map(({ host }) => host)),
  };
}
