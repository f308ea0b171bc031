/** What the command line asks for: train, compare, sweep, and write the report. */
import { availableParallelism } from 'node:os';
import { createGpu } from '@vramkit/adapter';
import { formatTable } from '@vramkit/bench';
import { openDevice } from '@vramkit/core';
import { peakBytes, Timeline } from '@vramkit/trace';
import { accumulationTable, sweepAccumulation } from './accumulation.js';
import { parameterSpecs } from './byte-model.js';
import { checkpointsInFolder } from './checkpointing.js';
import { compare, comparisonTable } from './compare.js';
import type { TrainCommand } from './options.js';
import { parameterCount } from './parameters.js';
import { choosePlan, stateBytes } from './plan.js';
import { writeReport } from './report.js';
import { readMobyDick } from './text.js';
import { closeTfjs, openTfjs } from './tfjs.js';
import { train } from './trainer.js';

/** Steps that the timeline shows. */
const TRACED_STEPS = 4;

const log = (line: string): void => void process.stdout.write(`${line}\n`);

/** Runs a command; what it finds goes to the terminal and into the report's folder. */
export async function runCommand(command: TrainCommand, signal: AbortSignal): Promise<void> {
  const { gpu, adapter, driver } = await createGpu();
  using device = await openDevice({ gpu });
  const tf = await openTfjs(device, log);
  using _closed = { [Symbol.dispose]: () => closeTfjs(tf) };
  const { model, modelName, steps, rows, length, accumulation } = command;
  const count = parameterCount(parameterSpecs(model));
  const subgroupSize = Math.ceil(count / command.subgroups);
  const layout = { parameterCount: count, subgroupSize, flushDType: 'bf16' } as const;
  const deviceBytes = command.deviceBytes ?? stateBytes(count) - 1;
  const softwareCores = adapter === 'gpu' ? 0 : availableParallelism();
  const schedule = await choosePlan(device, layout, { ...command, deviceBytes, softwareCores });
  const text = await readMobyDick(log);
  const common = { model, text, steps, rows, length, accumulation, signal };
  const { effective, planner, footprint } = schedule;
  const facts = {
    driver,
    model: `${modelName}, ${count} parameters`,
    'state of the optimizer': `${stateBytes(count)} B`,
    'budget of the optimizer': `${deviceBytes} B on the device`,
    plan: `${planner} ${JSON.stringify(effective)}: ${JSON.stringify(footprint)}`,
  };
  for (const [name, fact] of Object.entries(facts)) log(`${name}: ${fact}`);

  const timeline = new Timeline();
  const checkpoints =
    command.checkpoints === undefined ? undefined : await checkpointsInFolder(command.checkpoints);
  const state = await checkpoints?.latest();
  if (state !== undefined) log(`going on behind step ${state.step}`);
  const firstTraced = (state?.step ?? 0) + 1;
  let tracing = true;
  const result = await train(device, tf, {
    ...{ ...common, schedule, deviceBytes, saveEvery: command.saveEvery },
    ...(checkpoints === undefined ? {} : { save: checkpoints.save }),
    ...(state === undefined ? {} : { state }),
    trace: (event) => void (tracing && timeline.sink(event)),
    onStep: ({ step, loss, modelMs, optimizerMs }) => {
      tracing = step < firstTraced + TRACED_STEPS - 1;
      if (step > 1 && step % 20 !== 0 && step < steps) return;
      const rate = (1e3 * rows * length * accumulation) / (modelMs + optimizerMs);
      log(`step ${step}: loss ${loss.toFixed(4)}, ${rate.toFixed(0)} bytes/s`);
    },
  });
  const peaks = JSON.stringify(peakBytes(timeline.events).byKind);
  const comparison = command.compare
    ? await compare(device, tf, layout, common, (name) => log(`training: ${name}`))
    : undefined;
  if (comparison !== undefined) {
    log(formatTable(comparisonTable(comparison)));
    const apart = comparison.runs.slice(0, -1).map(({ largestDifference }) => largestDifference);
    const worst = Math.max(...apart);
    log(`largest difference ${worst.toExponential(1)}, noise ${comparison.noise.toExponential(1)}`);
  }
  const { sweep: counts } = command;
  const swept =
    counts.length === 0 ? [] : await sweepAccumulation(device, tf, schedule, { ...common, counts });
  if (swept.length > 0) log(formatTable(accumulationTable(swept)));
  const path = await writeReport(command.folder, {
    facts: { ...facts, 'peak bytes by kind': peaks },
    ...{ parameterCount: count, steps: result.steps, events: timeline.events },
    ...{ comparison, accumulation: swept },
  });
  log(`report: ${path}`);
}
