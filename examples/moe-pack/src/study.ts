/**
 * The study: the same model packed by every quantizer at every uniform width, and at 2.5 and 3 bits
 * with a width for each expert, allocated by several scores; what each costs in quality.
 */
import type { VramDevice } from '@vramkit/core';
import { loadModel, openModelFile } from '@vramkit/example-runtime';
import {
  activationFrequency,
  allocateBits,
  bytesForBits,
  correlationReport,
  gptq,
  hqq,
  hybrid,
  kMeansAllocator,
  knapsackAllocator,
  mopeq,
  optRtn,
  rtn,
  signRound,
  uniformAllocator,
  widthsOf,
  type AllocationUnit,
  type Allocator,
  type CodeBits,
  type FactorFormat,
  type GroupChoice,
  type Quantizer,
} from '@vramkit/packer';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { calibrate, type Calibration } from './calibrate.js';
import { meanLoss } from './evaluate.js';
import { openMoeModel, type MoeModel } from './moe-model.js';
import { packWith } from './pack-with.js';
import { measureErrors, scoreAsError, scoreUnits, toAllocationUnits } from './score-units.js';

/** One row of the table. */
export interface StudyRow {
  readonly widths: string;
  readonly quantizer: string;
  readonly group: string;
  readonly bitsPerWeight: number;
  readonly fileBytes: number;
  readonly mse: number;
  readonly sqnrDb: number;
  readonly perplexity: number;
}

/** Options of {@link study}. */
export interface StudyOptions {
  /** The model's folder, with `eval.txt` of bytes. */
  readonly folder: string;
  /** Where packed copies go. */
  readonly workFolder: string;
  /** Windows of text to evaluate with, and bytes of each. */
  readonly windows: number;
  readonly windowBytes: number;
  /** Leaves out all but a few rows. */
  readonly quick: boolean;
  /** How scales and minimums are stored; compact ones of half the group take as many bits. */
  readonly factors: FactorFormat;
  /** Threads that quantize. */
  readonly workers: number;
  readonly onRow: (row: StudyRow) => void;
  readonly onCorrelations: (report: ReturnType<typeof correlationReport>) => void;
}

const WIDTHS: readonly CodeBits[] = [2, 3, 4, 8];

/** Windows spread over the text: even ones for calibration, odd ones for evaluation. */
export function windowsOf(
  text: Uint8Array,
  count: number,
  bytes: number,
  part: 'calibration' | 'evaluation',
): Uint32Array[] {
  const step = Math.floor(text.length / (2 * count));
  const first = part === 'calibration' ? 0 : step;
  return Array.from({ length: count }, (_, i) => {
    const start = first + 2 * i * step;
    return Uint32Array.from(text.subarray(start, start + bytes));
  });
}

/** Runs the study. */
export async function study(device: VramDevice, options: StudyOptions): Promise<void> {
  const { folder, windows, windowBytes, quick } = options;
  const text = await readFile(join(folder, 'eval.txt'));
  const model = await openMoeModel(folder);
  try {
    const file = await openModelFile(folder);
    const weights = await loadModel(device, file).finally(() => file.close());
    const calibrationText = windowsOf(text, Math.min(6, windows), 257, 'calibration');
    const calibration = await calibrate(device, weights, calibrationText);
    weights.dispose();
    const evaluation = windowsOf(text, windows, windowBytes, 'evaluation');
    const run = new Study(device, model, { ...options, calibration, evaluation });
    await run.baseline();
    await run.mixed(quick);
    await run.uniform(quick);
  } finally {
    await model.close();
  }
}

/** What all rows of a study share. */
class Study {
  readonly #device: VramDevice;
  readonly #model: MoeModel;
  readonly #options: StudyOptions & {
    readonly calibration: Calibration;
    readonly evaluation: readonly Uint32Array[];
  };

  constructor(
    device: VramDevice,
    model: MoeModel,
    options: StudyOptions & {
      readonly calibration: Calibration;
      readonly evaluation: readonly Uint32Array[];
    },
  ) {
    this.#device = device;
    this.#model = model;
    this.#options = options;
  }

  async baseline(): Promise<void> {
    const { folder, evaluation, onRow } = this.#options;
    const loss = await meanLoss(this.#device, folder, evaluation);
    onRow({
      widths: 'as stored',
      quantizer: 'none',
      group: '-',
      bitsPerWeight: 16,
      fileBytes: this.#model.tensors.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      mse: 0,
      sqnrDb: Infinity,
      perplexity: Math.exp(loss),
    });
  }

  async #row(
    widths: string,
    chosen: ReadonlyMap<string, CodeBits>,
    how: { readonly quantizer: Quantizer; readonly groupSize: GroupChoice },
  ): Promise<void> {
    const { workFolder, calibration, evaluation, onRow, factors, workers } = this.#options;
    const packed = await packWith(this.#model, workFolder, {
      ...how,
      widths: chosen,
      calibration,
      factors,
      workers,
    });
    const loss = await meanLoss(this.#device, packed.folder, evaluation);
    const { folder: _, ...figures } = packed;
    onRow({
      widths,
      quantizer: how.quantizer.name,
      group: `${how.groupSize}${factors === 'compact' ? ' compact' : ''}`,
      ...figures,
      perplexity: Math.exp(loss),
    });
  }

  /** One width for all experts, by every quantizer. */
  async uniform(quick: boolean): Promise<void> {
    const quantizers: readonly Quantizer[] = [
      rtn(),
      rtn({ convention: 'symmetric-full' }),
      optRtn(),
      optRtn({ convention: 'symmetric' }),
      hqq(),
      gptq(),
      signRound({ iterations: 50 }),
    ];
    for (const bits of quick ? ([3] as const) : WIDTHS) {
      for (const quantizer of quick ? [rtn(), optRtn()] : quantizers) {
        const all = new Map(this.#model.experts.map(({ id }) => [id, bits]));
        await this.#row(`uniform ${bits}`, all, { quantizer, groupSize: 32 });
      }
    }
  }

  /** A width for each expert, by several scores and allocators, to a number of true bits. */
  async mixed(quick: boolean): Promise<void> {
    const { calibration, onCorrelations, factors } = this.#options;
    const model = this.#model;
    const frequency = activationFrequency({ counts: calibration.counts });
    const scorers = [mopeq(), frequency, hybrid([{ scorer: mopeq() }, { scorer: frequency }])];
    const scores = new Map<string, number[]>();
    for (const scorer of scorers) scores.set(scorer.name, await scoreUnits(model, scorer));
    const groups = factors === 'compact' ? ([64, 32] as const) : ([128, 64] as const);
    const all = [[2.5, groups[0]] as const, [3, groups[1]] as const];
    const targets = quick ? all.slice(1) : all;
    for (const [bits, groupSize] of targets) {
      // Errors are measured by round to nearest: what they are to each other changes little, and
      // the search takes 30 times as long.
      const how = { widths: WIDTHS, groupSize, factors, quantizer: rtn() };
      const errors = await measureErrors(model, { ...how, calibration });
      onCorrelations(
        correlationReport(
          scores,
          errors.map(([error = 0]) => error),
        ),
      );
      const unitsFor = (name: string | undefined): AllocationUnit[] => {
        const own = scores.get(name ?? '') ?? [];
        return toAllocationUnits(model, { ...how, scores: own, errors });
      };
      const run = async (label: string, units: AllocationUnit[], by: Allocator): Promise<void> => {
        const chosen = widthsOf(allocateBits(units, by));
        await this.#row(label, chosen, { quantizer: optRtn(), groupSize });
      };
      for (const width of [2, 3] as const) {
        await run(`uniform ${width}`, unitsFor(undefined), uniformAllocator(width));
      }
      const budgetBytes = bytesForBits(unitsFor(undefined), bits);
      const target = knapsackAllocator({ budgetBytes });
      await run(`outputError, knapsack ${bits}`, unitsFor(undefined), target);
      for (const [name, own] of scores) {
        await run(`${name}, knapsack ${bits}`, scoreAsError(unitsFor(name), own), target);
      }
      if (bits !== 3) continue;
      for (const scope of quick ? (['model'] as const) : (['layer', 'model'] as const)) {
        for (const { name } of scorers) {
          await run(`${name}, kMeans ${scope}`, unitsFor(name), kMeansAllocator({ scope }));
        }
      }
    }
  }
}
