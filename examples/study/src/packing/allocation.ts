/**
 * Widths for each unit: what every width costs and loses, measured once for a model and kept in a
 * file, and the scores that stand for a loss where nothing is measured.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import {
  columnPower,
  frobeniusNorm,
  outputErrorOf,
  type AllocationUnit,
  type Allocator,
} from '@vramkit/packer';
import type { ModelInputs } from './inputs.js';
import type { Replaceable, ReplaceableModel } from './replaceable-model.js';
import { storedBytes, widthName, type Stored, type Width } from './stored.js';

/** What a unit loses at a width. */
export interface Losses {
  /** Squared error of its weights. */
  readonly weights: number;
  /**
   * Squared change of its outputs, summed over the calibration tokens that use it; of a dense model
   * the mean over tokens.
   */
  readonly outputs: number;
  /** That change as if columns of the inputs did not depend on each other: what an imatrix sees. */
  readonly columns: number;
}

/** Losses by unit, then by name of the width. */
export type MeasuredErrors = Readonly<Record<string, Readonly<Record<string, Losses>>>>;

/** Reads a JSON file, or makes its content and keeps it. */
export async function kept<T>(path: string, make: () => Promise<T>): Promise<T> {
  try {
    // The file was written below.
    return JSON.parse(await readFile(path, 'utf8')) as T;
  } catch {
    const made = await make();
    await writeFile(`${path}.part`, JSON.stringify(made));
    await rename(`${path}.part`, path);
    return made;
  }
}

/** Units in the order of the model, with their matrices. */
export function unitsOf({ tensors }: ReplaceableModel): Map<string, Replaceable[]> {
  const units = new Map<string, Replaceable[]>();
  for (const tensor of tensors) {
    const own = units.get(tensor.unit) ?? [];
    own.push(tensor);
    units.set(tensor.unit, own);
  }
  return units;
}

/** Of a dense model's outputs one in so many is taken: all would take many minutes. */
const DENSE_ROWS = 4;

function everyRow(values: Float64Array, columns: number, every: number): Float64Array {
  return every === 1 ? values : values.filter((_, i) => Math.floor(i / columns) % every === 0);
}

/** Measures all units at all widths; the weights in the model have to be those of the file. */
export async function measureErrors(
  model: ReplaceableModel,
  inputs: ModelInputs,
  widths: readonly Width[],
  store: (tensor: Replaceable, width: Width) => Promise<Stored>,
): Promise<MeasuredErrors> {
  const errors: Record<string, Record<string, { -readonly [part in keyof Losses]: number }>> = {};
  const counts = await inputs.counts();
  const every = counts === undefined ? DENSE_ROWS : 1;
  for (const tensor of model.tensors) {
    const { unit, values, columns } = tensor;
    const moments = await inputs.momentsOf(tensor);
    const power = columnPower(moments, columns);
    const own = (errors[unit] ??= {});
    for (const width of widths) {
      const stored = await store(tensor, width);
      const difference = Float64Array.from(values, (value, i) => (stored.values[i] ?? 0) - value);
      const sums = (own[widthName(width)] ??= { weights: 0, outputs: 0, columns: 0 });
      sums.weights += difference.reduce((sum, each) => sum + each * each, 0);
      const tokens = counts === undefined ? 1 : (counts.get(unit) ?? 0);
      const taken = everyRow(difference, columns, every);
      sums.outputs += tokens * every * outputErrorOf(taken, moments, columns);
      sums.columns +=
        tokens *
        difference.reduce((sum, each, i) => sum + (power[i % columns] ?? 0) * each * each, 0);
    }
  }
  return errors;
}

/** Sum over a unit's matrices of the inverse norm: MoPEQ in closed form. */
export function mopeqScores(model: ReplaceableModel): Map<string, number> {
  const scores = new Map<string, number>();
  for (const { unit, values } of model.tensors) {
    scores.set(unit, (scores.get(unit) ?? 0) + 1 / frobeniusNorm(values));
  }
  return scores;
}

/** How a unit's loss at a width is told. */
export type LossOf = (unit: string, width: Width) => number;

/** A score as the loss: how losses fall with the width is the mean of all units. */
export function lossByScore(errors: MeasuredErrors, scores: ReadonlyMap<string, number>): LossOf {
  const units = Object.values(errors);
  return (unit, width) => {
    const name = widthName(width);
    const mean = units.reduce((sum, each) => sum + (each[name]?.weights ?? 0), 0) / units.length;
    return (scores.get(unit) ?? 0) * mean;
  };
}

/** Units for an allocator. */
export function allocationUnits(
  model: ReplaceableModel,
  widths: readonly Width[],
  lossOf: LossOf,
  scores?: ReadonlyMap<string, number>,
): AllocationUnit[] {
  return [...unitsOf(model)].map(([id, tensors]) => ({
    id,
    layer: tensors[0]?.layer ?? 0,
    weights: tensors.reduce((sum, { values }) => sum + values.length, 0),
    score: scores?.get(id) ?? 0,
    choices: widths.map((width) => ({
      bits: width.bits,
      sizeBytes: tensors.reduce((sum, tensor) => sum + storedBytes(tensor, width), 0),
      error: lossOf(id, width),
    })),
  }));
}

/** The width of each unit, by id. */
export function chooseWidths(
  units: readonly AllocationUnit[],
  widths: readonly Width[],
  allocator: Allocator,
): Map<string, Width> {
  const chosen = allocator.allocate(units);
  return new Map(
    units.map(({ id }, i) => {
      const width = widths[chosen[i] ?? -1];
      if (width === undefined) throw new RangeError(`no width of ${id}`);
      return [id, width] as const;
    }),
  );
}
