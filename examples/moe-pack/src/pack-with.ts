/**
 * Writes a packed copy of a model beside its configuration, with a width for each expert;
 * everything else stays as it is.
 */
import {
  compareWeights,
  fileSink,
  matrixBytes,
  matrixValues,
  packModel,
  planModel,
  type CodeBits,
  type FactorFormat,
  type GroupChoice,
  type Quantizer,
} from '@vramkit/packer';
import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Calibration } from './calibrate.js';
import type { MoeModel } from './moe-model.js';
import { momentsOf } from './score-units.js';

/** A packed model on disk. */
export interface PackedModel {
  readonly folder: string;
  /** Bytes of the whole file. */
  readonly fileBytes: number;
  /** Bits for each weight of the experts: codes, scales and minimums. */
  readonly bitsPerWeight: number;
  /** Mean squared error of the experts' weights. */
  readonly mse: number;
  /** Signal to quantization noise ratio of the experts' weights, in dB. */
  readonly sqnrDb: number;
}

/** Packs into `folder`, which is made; the same file for every number of `workers`. */
export async function packWith(
  model: MoeModel,
  folder: string,
  options: {
    readonly widths: ReadonlyMap<string, CodeBits>;
    readonly groupSize: GroupChoice;
    /** How scales and minimums are stored. Default: 'f16'. */
    readonly factors?: FactorFormat | undefined;
    readonly quantizer: Quantizer;
    readonly calibration?: Calibration | undefined;
    /** Threads that quantize. Default: 1. */
    readonly workers?: number;
  },
): Promise<PackedModel> {
  const { widths, groupSize, factors = 'f16', quantizer, calibration, workers = 1 } = options;
  await mkdir(folder, { recursive: true });
  const plan = planModel(model.tensors, {
    plan: ({ name }) => {
      const unit = model.unitOf.get(name);
      const bits = unit === undefined ? undefined : widths.get(unit);
      if (unit === undefined || bits === undefined) return 'keep';
      return { bits, groupSize, factors, quantizer, moments: momentsOf(calibration, unit, name) };
    },
  });
  let [bytes, weights, noise, signal] = [0, 0, 0, 0];
  const sink = await fileSink(join(folder, 'model.safetensors'));
  try {
    await packModel(plan, sink, {
      workers,
      onMatrix: (_name, matrix, values) => {
        const { columns } = matrix.layout;
        bytes += matrixBytes(matrix.layout);
        weights += values.length;
        noise += values.length * compareWeights(matrixValues(matrix), values, { columns }).mse;
        for (const value of values) signal += value * value;
      },
    });
  } finally {
    await sink.close();
  }
  await copyFile(join(model.folder, 'config.json'), join(folder, 'config.json'));
  return {
    folder,
    fileBytes: plan.layout.sizeBytes,
    bitsPerWeight: (8 * bytes) / weights,
    mse: noise / weights,
    sqnrDb: 10 * Math.log10(signal / noise),
  };
}
