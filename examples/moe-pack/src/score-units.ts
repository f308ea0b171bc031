/**
 * Scores and measured errors of every expert, one expert in memory at a time.
 */
import {
  matrixBytes,
  measureUnit,
  quantizeMatrix,
  type AllocationUnit,
  type CodeBits,
  type FactorFormat,
  type GroupChoice,
  type Quantizer,
  type Scorer,
} from '@vramkit/packer';
import type { Calibration } from './calibrate.js';
import { loadUnit, type MoeModel } from './moe-model.js';

/** Moments of a tensor's input: w1 and w3 multiply the layer's input, w2 what they make. */
export function momentsOf(
  calibration: Calibration | undefined,
  unit: string,
  tensor: string,
): Float64Array | undefined {
  const found = calibration?.moments.get(unit);
  return tensor.endsWith('w2.weight') ? found?.inner : found?.input;
}

/** The score of every expert, in the model's order. */
export async function scoreUnits(
  model: MoeModel,
  scorer: Scorer,
  calibration?: Calibration,
): Promise<number[]> {
  const scores: number[] = [];
  for (const unit of model.experts) {
    const loaded = await loadUnit(unit, (tensor) => momentsOf(calibration, unit.id, tensor));
    scores.push(await scorer.score(loaded));
  }
  return scores;
}

/**
 * Error of every expert at every width: mean squared change of its outputs, times the tokens that
 * it gets. Without calibration, the squared error of its weights.
 */
export async function measureErrors(
  model: MoeModel,
  options: {
    readonly widths: readonly CodeBits[];
    readonly groupSize: GroupChoice;
    readonly factors?: FactorFormat | undefined;
    readonly quantizer: Quantizer;
    readonly calibration?: Calibration | undefined;
  },
): Promise<number[][]> {
  const { widths, calibration, ...how } = options;
  const errors: number[][] = [];
  for (const unit of model.experts) {
    const loaded = await loadUnit(unit, (tensor) => momentsOf(calibration, unit.id, tensor));
    const weight = calibration === undefined ? 1 : (calibration.counts.get(unit.id) ?? 0);
    errors.push(widths.map((bits) => weight * measureUnit(loaded, { bits, ...how })));
  }
  return errors;
}

/** Units for an allocator, with the bytes that each width really takes. */
export function toAllocationUnits(
  model: MoeModel,
  options: {
    readonly widths: readonly CodeBits[];
    readonly groupSize: GroupChoice;
    readonly factors?: FactorFormat | undefined;
    readonly scores: readonly number[];
    readonly errors: readonly (readonly number[])[];
  },
): AllocationUnit[] {
  const { widths, groupSize, factors, scores, errors } = options;
  return model.experts.map(({ id, layer, tensors }, i) => {
    const sizes = tensors.map(({ shape }) => ({ rows: shape[0] ?? 0, columns: shape[1] ?? 0 }));
    const bytes = (bits: CodeBits): number =>
      sizes.reduce((sum, { rows, columns }) => {
        const row = new Float32Array(columns);
        const how = { name: id, rows: 1, columns, bits, groupSize, factors };
        const { layout } = quantizeMatrix(row, how);
        return sum + rows * matrixBytes(layout);
      }, 0);
    return {
      id,
      layer,
      weights: sizes.reduce((sum, { rows, columns }) => sum + rows * columns, 0),
      score: scores[i] ?? 0,
      choices: widths.map((bits, w) => ({
        bits,
        sizeBytes: bytes(bits),
        error: errors[i]?.[w] ?? 0,
      })),
    };
  });
}

/**
 * Lets a score stand for the error, so that it can be held to a byte target: how errors fall with
 * the width is taken from the first expert for all, and how much each matters is the score.
 */
export function scoreAsError(
  units: readonly AllocationUnit[],
  scores: readonly number[],
): AllocationUnit[] {
  const shape = units[0]?.choices.map(({ error }) => error) ?? [];
  return units.map((unit, i) => ({
    ...unit,
    choices: unit.choices.map((choice, w) => ({
      ...choice,
      error: ((scores[i] ?? 0) * (shape[w] ?? 0)) / (shape[0] ?? 1),
    })),
  }));
}
