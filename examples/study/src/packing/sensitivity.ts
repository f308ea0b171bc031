/**
 * How much the loss of the calibration windows rises where one part of the model alone is stored in
 * 2 bits: the plainest answer to what a unit is worth, at one pass over the windows for each.
 *
 * A part is a unit of a mixture of experts. A dense model has too many matrices for that: there it
 * is the attention or the feed-forward of a layer, and its matrices share the rise by the squared
 * error of their weights.
 */
import { throwIfAborted } from '@vramkit/core';
import { optRtn } from '@vramkit/packer';
import type { Replaceable, ReplaceableModel } from './replaceable-model.js';
import { packedOnce, type Width } from './stored.js';

/** A rise that is less, or a fall, is noise; no unit is free. */
const LEAST_RISE = 1e-5;

function partOf({ name, unit, layer }: Replaceable, isMixture: boolean): string {
  if (isMixture) return unit;
  return `${layer} ${/(gate|up|down)$/.test(name) ? 'feed-forward' : 'attention'}`;
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** The rise of each unit, nats; the weights in the model have to be those of the file. */
export async function measureSensitivity(
  model: ReplaceableModel,
  windows: readonly Uint32Array[],
  narrowest: Width,
  folder: string,
  signal: AbortSignal,
): Promise<Record<string, number>> {
  const isMixture = model.model.config.experts > 0;
  const parts = new Map<string, Replaceable[]>();
  for (const tensor of model.tensors) {
    const part = partOf(tensor, isMixture);
    parts.set(part, [...(parts.get(part) ?? []), tensor]);
  }
  const base = mean(await model.losses(windows));
  const rises: Record<string, number> = {};
  for (const tensors of parts.values()) {
    throwIfAborted(signal);
    const errors: number[] = [];
    for (const tensor of tensors) {
      const { values } = await packedOnce(folder, tensor, narrowest, optRtn());
      errors.push(values.reduce((sum, v, i) => sum + (v - (tensor.values[i] ?? NaN)) ** 2, 0));
      await model.write(tensor, values);
    }
    const rise = Math.max(LEAST_RISE, mean(await model.losses(windows)) - base);
    const total = errors.reduce((sum, error) => sum + error, 0);
    for (const [i, tensor] of tensors.entries()) {
      const share = (rise * (errors[i] ?? 0)) / total;
      rises[tensor.unit] = (rises[tensor.unit] ?? 0) + share;
      await model.write(tensor, tensor.values);
    }
  }
  return rises;
}
