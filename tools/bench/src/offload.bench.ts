/**
 * Does a plan take as long as it says, and is the plan that `auto` picks the fastest there is?
 *
 * In each round the machine is calibrated, which adds to the calibrations before, and 20 plans over
 * strides, ratios and subgroup sizes are run, and so is the plan that `auto` picked after the first
 * round. The plans are predicted from the calibrations alone. Of all times, those of a calibration
 * and those of the plans, the least of all rounds counts: what else runs on the machine adds to
 * either and never takes away. A report with the plots (HTML) and
 * the timeline of one plan (Chrome JSON) go to the system's folder for temporary files.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGpu } from '@vramkit/adapter';
import { createTensor, openDevice, tracedResource } from '@vramkit/core';
import type { VramDevice } from '@vramkit/core';
import {
  auto,
  calibrate,
  createOptimizer,
  deepOptimizerStates,
  machineAt,
  mergeCalibrations,
  simulate,
} from '@vramkit/offload';
import type { Calibration, OffloadedOptimizer, Schedule } from '@vramkit/offload';
import { posixStore, type BlobStore } from '@vramkit/storage';
import { chromeTrace, renderReport, Timeline } from '@vramkit/trace';
import type { Plot } from '@vramkit/trace';
import type { BenchOptions } from './command-line.js';
import { median, summarize } from './measure.js';
import { formatTable } from './report.js';
import type { BenchResult } from './report.js';

/** The question that it answers, with the goal. */
export const question =
  'Do plans take as long as predicted (15 %, median of 20), and is auto within 5 % of the best?';

interface Subject {
  readonly name: string;
  readonly schedule: Schedule;
  readonly measuredMs: number[];
}

function subjectOf(plan: Pick<Subject, 'name' | 'schedule'>): Subject {
  return { ...plan, measuredMs: [] };
}

const THREADS = 1;
const ROUNDS = 6;
/** Steps of a plan in each round. */
const STEPS = 3;
const DTYPES = { parameterDType: 'bf16', flushDType: 'bf16' } as const;

function plans(parameterCount: number): { name: string; schedule: Schedule }[] {
  const third = Math.ceil(parameterCount / 24);
  const settings: [stride: number, ratio: number, subgroupSize: number][] = [
    ...[1, 2, 3, 4, 5, 6, 7, 8, Infinity].map((k): [number, number, number] => [k, 1, third]),
    ...[0, 0.25, 0.5, 0.75].map((ratio): [number, number, number] => [2, ratio, third]),
    ...[0.25, 0.5, 0.75].map((ratio): [number, number, number] => [Infinity, ratio, third]),
    ...[1, 2].map((k): [number, number, number] => [k, 1, 2 * third]),
    ...[2, 3].map((k): [number, number, number] => [k, 1, 4 * third]),
  ];
  return settings.map(([stride, ratio, subgroupSize]) => ({
    name: `stride ${stride}, ratio ${ratio}, ${Math.round(subgroupSize / 1024)}K`,
    schedule: deepOptimizerStates({ parameterCount, subgroupSize, ...DTYPES }, { stride, ratio }),
  }));
}

async function giveGradients(device: VramDevice, optimizer: OffloadedOptimizer): Promise<void> {
  const { subgroupSize } = optimizer.schedule.layout;
  using gradient = createTensor(device, {
    dtype: 'f32',
    shape: [subgroupSize],
    kind: 'gradients',
    label: 'bench gradient',
  });
  gradient.write(new Float32Array(subgroupSize).fill(0.01));
  for (const index of optimizer.schedule.subgroups.keys()) {
    await optimizer.addGradient(index, gradient);
  }
  await device.settle();
}

/** Update times of some steps, after one that does not count. */
async function measure(device: VramDevice, { schedule, measuredMs }: Subject): Promise<void> {
  const parameters = new Float32Array(schedule.layout.parameterCount).fill(0.5);
  const optimizer = await createOptimizer(device, schedule, { parameters }, { threads: THREADS });
  for (let step = -1; step < STEPS; step++) {
    await giveGradients(device, optimizer);
    const result = await optimizer.step();
    if (step >= 0) measuredMs.push(result.updateMs);
  }
  await optimizer.dispose();
}

function leastMs({ measuredMs }: Subject): number {
  return Math.min(...measuredMs);
}

/** What `auto` picks without budgets, over the subgroup sizes that are measured. */
function pickPlan(parameterCount: number, calibration: Calibration): Schedule {
  const plans = [1, 2, 4].flatMap((times) => {
    const subgroupSize = (times * parameterCount) / 24;
    const machine = machineAt(calibration, subgroupSize);
    const plan = auto({ parameterCount, subgroupSize, ...DTYPES }, { machine });
    return 'infeasible' in plan ? [] : [plan];
  });
  const [first] = plans.sort((a, b) => a.predictedMs - b.predictedMs);
  if (first === undefined) throw new Error('auto finds no plan without a budget');
  return first.schedule;
}

interface Row extends Subject {
  readonly predictedMs: number;
  /** Least of the runs. */
  readonly measured: number;
}

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
const verdict = (holds: boolean): string => (holds ? 'holds' : 'DOES NOT HOLD');

function logPredictions(log: (line: string) => void, rows: readonly Row[]): void {
  const off = ({ predictedMs, measured }: Row): number => predictedMs / measured - 1;
  const cells = rows.map((row) => [
    ...[row.name, '', row.predictedMs.toFixed(1), row.measured.toFixed(1)],
    ...[percent(off(row)), median(row.measuredMs).toFixed(1)],
  ]);
  const header = ['plan', '', 'predicted, ms', 'measured, ms', 'off', 'median of runs, ms'];
  log(formatTable([header, ...cells]));
  const error = median(rows.map((row) => Math.abs(off(row))));
  log(`median error ${percent(error)} of ${rows.length} plans: 15 % ${verdict(error <= 0.15)}`);
}

function logChoice(log: (line: string) => void, best: Subject, choice: Subject): void {
  const { planner, effective, layout } = choice.schedule;
  log(`auto: ${planner} ${JSON.stringify(effective)}, subgroups of ${layout.subgroupSize}`);
  const behind = leastMs(choice) / leastMs(best) - 1;
  log(
    `auto takes ${leastMs(choice).toFixed(1)} ms, ${percent(behind)} over the best measured plan ` +
      `(${best.name}): 5 % ${verdict(behind <= 0.05)}`,
  );
}

/** Measures. */
export async function run({ quick, log }: BenchOptions): Promise<readonly BenchResult[]> {
  const { gpu, adapter, driver } = await createGpu();
  log(`driver: ${driver}`);
  const device = await openDevice({ gpu });
  const parameterCount = (quick ? 6 : 24) * 256 * 1024;
  const softwareCores = adapter === 'gpu' ? 0 : availableParallelism();
  const subjects = plans(parameterCount).map(subjectOf);
  const third = parameterCount / 24;
  const measureRates = (store?: BlobStore): Promise<Calibration> =>
    calibrate(device, {
      ...{ threads: THREADS, parameterDType: 'bf16', softwareCores, parameterCount, runs: 2 },
      sizes: [third, 2 * third, 4 * third],
      ...(store === undefined ? {} : { store }),
    });
  let calibration: Calibration | undefined;
  for (let round = 0; round < ROUNDS; round++) {
    const one = await measureRates();
    calibration = calibration === undefined ? one : mergeCalibrations(calibration, one);
    for (const subject of subjects) await measure(device, subject);
  }
  const folder = await mkdtemp(join(tmpdir(), 'vramkit-offload-'));
  const last = await measureRates(await posixStore({ folder }));
  await rm(folder, { recursive: true });
  calibration = calibration === undefined ? last : mergeCalibrations(calibration, last);
  log(formatCalibration(calibration));
  const rates = calibration;
  const choice = subjectOf({ name: 'auto', schedule: pickPlan(parameterCount, rates) });
  const best = subjects.reduce((a, b) => (leastMs(b) < leastMs(a) ? b : a));
  for (let round = 0; round < ROUNDS; round++) {
    for (const subject of [choice, best]) await measure(device, subject);
  }
  const rows = subjects.map((subject): Row => {
    const { operations, layout } = subject.schedule;
    const predictedMs = simulate(operations, machineAt(rates, layout.subgroupSize)).totalMs;
    return { ...subject, predictedMs, measured: leastMs(subject) };
  });
  logPredictions(log, rows);
  logChoice(log, best, choice);
  const shown = rows.find(({ name }) => name.startsWith('stride 2, ratio 0.75')) ?? rows[0];
  if (shown === undefined) throw new Error('there are plans');
  const timeline = await traceOnePlan(device, shown.schedule);
  writeReport(log, driver, calibration, timeline, rows);
  device.dispose();
  const common = { suite: 'offload', driver, metric: 'update time', unit: 'ms' } as const;
  return rows.map((row) => {
    const { min, max, runs } = summarize(row.measuredMs);
    return {
      ...common,
      case: row.name,
      ours: row.measured,
      peers: { predicted: row.predictedMs },
      ratios: { predicted: row.predictedMs / row.measured },
      runs,
      min,
      max,
    };
  });
}

function formatCalibration({ rates, host, contention, machine }: Calibration): string {
  const threads = host.adamByThreads.map((rate, at) => [`adam, ${at + 1} threads`, rate] as const);
  const { copy, storageWrite, storageRead } = host;
  const all = [...Object.entries(rates), ...threads, ['host copy', copy] as const];
  if (storageWrite !== undefined) all.push(['storage write', storageWrite]);
  if (storageRead !== undefined) all.push(['storage read', storageRead]);
  const rows = all.map(([name, { fixedMs, perSecond, samples }]) => [
    name,
    '',
    fixedMs.toFixed(3),
    (perSecond / 1e6).toFixed(1),
    ...samples.map(({ medianMs, minMs, maxMs }) =>
      [medianMs, minMs, maxMs].map((ms) => ms.toFixed(1)).join('/'),
    ),
  ]);
  const sizes = ['1st', '2nd', '3rd', '4th'].map((at) => `${at} size: median/min/max, ms`);
  const factors = [...contention, { size: 'middle', ...machine.contention }].map(
    ({ size, queue = 1, host: own = 1 }) =>
      `contention at ${size}: queue ${queue.toFixed(2)}, host ${own.toFixed(2)}`,
  );
  const table = formatTable([['rate', '', 'fixed, ms', 'M per s', ...sizes], ...rows]);
  return [table, ...factors].join('\n');
}

async function traceOnePlan(device: VramDevice, schedule: Schedule): Promise<Timeline> {
  const timeline = new Timeline();
  const now = (): number => performance.now();
  const memory = tracedResource(device.memory, timeline.sink, { now });
  const parameters = new Float32Array(schedule.layout.parameterCount).fill(0.5);
  const optimizer = await createOptimizer(
    device,
    schedule,
    { parameters },
    { threads: THREADS, memory, trace: timeline.sink, now },
  );
  for (let step = 0; step < 3; step++) {
    const start = now();
    await giveGradients(device, optimizer);
    timeline.sink({ type: 'phase', timeMs: start, durationMs: now() - start, label: 'gradients' });
    await optimizer.step();
  }
  await optimizer.dispose();
  memory.dispose();
  return timeline;
}

function plotsOf(rows: readonly Row[], calibration: Calibration): Plot[] {
  const sorted = [...rows].sort((a, b) => a.predictedMs - b.predictedMs);
  const against: Plot = {
    title: 'Update time, predicted and measured',
    xLabel: 'predicted, ms',
    yLabel: 'ms',
    x: sorted.map(({ predictedMs }) => predictedMs),
    series: [
      { label: 'measured', values: sorted.map(({ measured }) => measured), dots: true },
      { label: 'as predicted', values: sorted.map(({ predictedMs }) => predictedMs) },
    ],
  };
  const sweep = (
    title: string,
    xLabel: string,
    pattern: RegExp,
    x: (schedule: Schedule) => number,
  ): Plot => {
    const own = rows.filter(({ name }) => pattern.test(name));
    own.sort((p, q) => x(p.schedule) - x(q.schedule));
    return {
      ...{ title, xLabel, yLabel: 'ms' },
      x: own.map(({ schedule }) => x(schedule)),
      series: [
        { label: 'measured', values: own.map(({ measured }) => measured), dots: true },
        { label: 'predicted', values: own.map(({ predictedMs }) => predictedMs) },
      ],
    };
  };
  const size = Math.min(...rows.map(({ schedule }) => schedule.layout.subgroupSize));
  const small = `${Math.round(size / 1024)}K$`;
  const sweeps = [
    sweep('Update time over stride', 'stride', RegExp(`^stride \\d+, ratio 1, ${small}`), (plan) =>
      Number(plan.effective.stride),
    ),
    sweep(
      'Update time over ratio, stride 2',
      'ratio',
      RegExp(`^stride 2, .*${small}`),
      (plan) => plan.effective.ratio,
    ),
    sweep(
      'Update time over subgroup size, stride 2',
      'parameters',
      /^stride 2, ratio 1,/,
      (plan) => plan.layout.subgroupSize,
    ),
  ];
  const links: Plot = {
    title: 'Link rate over size',
    xLabel: 'MB moved at once',
    yLabel: 'GB/s',
    x: calibration.rates.stageIn.samples.map(({ work }) => work / 1e6),
    series: (['stageIn', 'stageOut'] as const).map((name) => ({
      label: name === 'stageIn' ? 'up' : 'down',
      values: calibration.rates[name].samples.map(({ work, medianMs }) => work / medianMs / 1e6),
    })),
  };
  return [against, ...sweeps, links];
}

function writeReport(
  log: (line: string) => void,
  driver: string,
  calibration: Calibration,
  timeline: Timeline,
  rows: readonly Row[],
): void {
  const require = createRequire(import.meta.url);
  const library = {
    script: readFileSync(require.resolve('uplot/dist/uPlot.iife.min.js'), 'utf8'),
    style: readFileSync(require.resolve('uplot/dist/uPlot.min.css'), 'utf8'),
  };
  const page = renderReport(timeline.events, library, {
    title: 'Optimizer offloading: plans against the machine',
    facts: { driver, parameters: String(rows[0]?.schedule.layout.parameterCount ?? 0) },
    parameterCount: rows[0]?.schedule.layout.parameterCount ?? 1,
    plots: plotsOf(rows, calibration),
  });
  const base = join(tmpdir(), 'vramkit-offload');
  writeFileSync(`${base}.html`, page);
  writeFileSync(`${base}.trace.json`, JSON.stringify(chromeTrace(timeline.events)));
  log(`report: ${base}.html; timeline: ${base}.trace.json`);
}
