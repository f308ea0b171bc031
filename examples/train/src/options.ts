/** Command line of the training example. */
import { resolve } from 'node:path';
import { parseFlags } from '@vramkit/adapter';
import { assertArgument, checkInteger, fail } from '@vramkit/core';
import { MODEL_SHAPES, type ModelShape } from './byte-model.js';
import { PLANNERS, type PlannerName } from './plan.js';

/** What the example was asked to do. */
export interface TrainCommand {
  readonly modelName: string;
  readonly model: ModelShape;
  readonly steps: number;
  readonly rows: number;
  readonly length: number;
  readonly accumulation: number;
  readonly subgroups: number;
  readonly planner: PlannerName;
  readonly stride: number;
  readonly ratio: number;
  /** Bytes that the optimizer may take on the device; undefined: just less than its state. */
  readonly deviceBytes: number | undefined;
  readonly compare: boolean;
  /** Passes to measure; empty: no sweep. */
  readonly sweep: readonly number[];
  readonly checkpoints: string | undefined;
  readonly saveEvery: number;
  readonly folder: string;
}

/** Text of `--help`. */
export const HELP = `Trains a byte-level transformer; its optimizer's state does not fit the device.

usage: npm run train -- [options]

  --model small|tiny-moe   0.1 M dense or 3.4 M with 8 experts (default: small)
  --steps N                (default: 200)
  --rows N --length N      rows of a batch, and bytes of a row (default: 4, 32)
  --accumulation N         batches for each update (default: 1)
  --planner NAME           ${PLANNERS.slice(0, 3).join(', ')},
                           ${PLANNERS.slice(3).join(', ')} (default: ${PLANNERS[0]})
  --stride N --ratio R     of the planners that have them (default: 2, 1)
  --subgroups N            (default: 16)
  --device-bytes N         for the optimizer (default: what p, m and v take, less one)
  --compare                the same training under five plans and without offloading
  --sweep N[,N...]         measures iterations over numbers of passes
  --checkpoints FOLDER     saves the state there, and goes on from what is there
  --save-every N           steps (default: 50)
  --out FOLDER             report.html, trace.json, losses.json (default: reports/train)
`;

const FLAGS = {
  model: { type: 'string', default: 'small' },
  steps: { type: 'string', default: '200' },
  rows: { type: 'string', default: '4' },
  length: { type: 'string', default: '32' },
  accumulation: { type: 'string', default: '1' },
  planner: { type: 'string', default: PLANNERS[0] },
  stride: { type: 'string', default: '2' },
  ratio: { type: 'string', default: '1' },
  subgroups: { type: 'string', default: '16' },
  'device-bytes': { type: 'string' },
  compare: { type: 'boolean', default: false },
  sweep: { type: 'string' },
  checkpoints: { type: 'string' },
  'save-every': { type: 'string', default: '50' },
  out: { type: 'string', default: 'reports/train' },
  help: { type: 'boolean', default: false },
} as const;

/**
 * Reads the options.
 * @param folder Where relative paths start.
 * @throws VramError `invalid-argument` naming the option.
 */
export function parseOptions(args: readonly string[], folder: string): TrainCommand | 'help' {
  const { values } = parseFlags({ args: [...args], options: FLAGS });
  if (values.help) return 'help';
  const count = (name: keyof typeof FLAGS): number =>
    checkInteger(`--${name}`, Number(values[name]), 1);
  const model = Object.entries(MODEL_SHAPES).find(([name]) => name === values.model)?.[1];
  const ratio = Number(values.ratio);
  assertArgument(ratio >= 0 && ratio <= 1, `--ratio ${values.ratio} is not between 0 and 1`);
  const planner = PLANNERS.find((name) => name === values.planner);
  return {
    modelName: values.model,
    model: model ?? fail('invalid-argument', `there is no model '${values.model}'`),
    steps: count('steps'),
    rows: count('rows'),
    length: count('length'),
    accumulation: count('accumulation'),
    subgroups: count('subgroups'),
    planner: planner ?? fail('invalid-argument', `there is no planner '${values.planner}'`),
    stride: count('stride'),
    ratio,
    deviceBytes: values['device-bytes'] === undefined ? undefined : count('device-bytes'),
    compare: values.compare,
    sweep: values.sweep?.split(',').map((each) => checkInteger('--sweep', Number(each), 1)) ?? [],
    checkpoints: values.checkpoints === undefined ? undefined : resolve(folder, values.checkpoints),
    saveEvery: count('save-every'),
    folder: resolve(folder, values.out),
  };
}
