/**
 * Parameters between two owners: the optimizer has them as one flat array cut into subgroups, the
 * model as named tensors, each in a buffer of its own because TensorFlow.js binds whole buffers.
 *
 * ```
 *  optimizer  │ subgroup 0  │ subgroup 1  │ subgroup 2 │
 *  model      │ embedding       │ q  │ k  │ ...        │
 * ```
 *
 * Both ways are copies on the device, 4 bytes a parameter each.
 */
import {
  Batch,
  createTensor,
  fail,
  subrange,
  type MemoryResource,
  type Tensor,
  type VramDevice,
} from '@vramkit/core';
import type { OffloadedOptimizer, Subgroup } from '@vramkit/offload';
import type { ParameterSpec } from './byte-model.js';
import { normals, uniformFrom } from './random.js';
import { adoptTensor, lendTensor, type Tf, type TfTensor } from './tfjs.js';

/** An array and where it lies in the flat one. */
interface PlacedParameter extends ParameterSpec {
  readonly start: number;
  readonly count: number;
}

function place(specs: readonly ParameterSpec[]): PlacedParameter[] {
  let start = 0;
  return specs.map((spec) => {
    const count = spec.shape.reduce((product, extent) => product * extent, 1);
    const placed = { ...spec, start, count };
    start += count;
    return placed;
  });
}

/** Parameters of all arrays together. */
export function parameterCount(specs: readonly ParameterSpec[]): number {
  return place(specs).reduce((sum, { count }) => sum + count, 0);
}

/** First values: ones for norms, else a normal distribution by the rows of the matrix. */
export function initialParameters(specs: readonly ParameterSpec[], seed: number): Float32Array {
  const all = new Float32Array(parameterCount(specs));
  const uniform = uniformFrom(seed);
  for (const { name, shape, start, count } of place(specs)) {
    const [rows = 1] = shape;
    const deviation = name === 'embedding' ? 0.05 : rows ** -0.5;
    if (shape.length === 1) all.fill(1, start, start + count);
    else all.set(normals(count, deviation, uniform), start);
  }
  return all;
}

/** Where two runs of the flat array meet, or nothing. */
function overlap(a: PlacedParameter | Subgroup, b: PlacedParameter | Subgroup) {
  const start = Math.max(a.start, b.start);
  const count = Math.min(a.start + a.count, b.start + b.count) - start;
  return count > 0 ? { start, count } : undefined;
}

/** The model's parameters on the device; the caller disposes them. */
export class ModelParameters {
  readonly #device: VramDevice;
  readonly #placed: readonly PlacedParameter[];
  readonly #tensors: Tensor[] = [];
  readonly #lent: readonly TfTensor[];
  readonly #scratch: Tensor;

  /**
   * @param subgroupSize Parameters of the optimizer's largest subgroup.
   * @throws VramError `out-of-memory`; nothing stays allocated then.
   */
  constructor(
    device: VramDevice,
    tf: Tf,
    specs: readonly ParameterSpec[],
    options: { readonly memory: MemoryResource; readonly subgroupSize: number },
  ) {
    const { memory, subgroupSize } = options;
    this.#device = device;
    this.#placed = place(specs);
    const take = (kind: 'weights' | 'gradients', label: string, count: number): Tensor =>
      createTensor(device, { dtype: 'f32', shape: [count], kind, label, memory });
    try {
      for (const { name, count } of this.#placed) this.#tensors.push(take('weights', name, count));
      this.#scratch = take('gradients', 'gradient of a subgroup', subgroupSize);
    } catch (error) {
      for (const tensor of this.#tensors) tensor.dispose();
      throw error;
    }
    this.#lent = this.#placed.map(({ shape }, at) =>
      lendTensor(tf, found(this.#tensors[at]), shape),
    );
  }

  /** Tensors in the order of the specifications. */
  get tensors(): readonly TfTensor[] {
    return this.#lent;
  }

  /** Takes the optimizer's parameters over. */
  load(optimizer: OffloadedOptimizer): void {
    const batch = new Batch(this.#device, 'load parameters');
    optimizer.schedule.subgroups.forEach((subgroup, index) => {
      const source = found(optimizer.weights[index]);
      this.#placed.forEach((parameter, at) => {
        const part = overlap(subgroup, parameter);
        if (part === undefined) return;
        batch.copy(
          subrange(source, 4 * (part.start - subgroup.start), 4 * part.count),
          subrange(found(this.#tensors[at]), 4 * (part.start - parameter.start), 4 * part.count),
        );
      });
    });
    batch.submit();
  }

  /** Hands gradients, by parameter, to the optimizer, by subgroup. */
  async giveGradients(optimizer: OffloadedOptimizer, gradients: readonly TfTensor[]) {
    for (const [index, subgroup] of optimizer.schedule.subgroups.entries()) {
      this.#placed.forEach((parameter, at) => {
        const part = overlap(subgroup, parameter);
        if (part === undefined) return;
        adoptTensor(found(gradients[at]), (gradient) => {
          const batch = new Batch(this.#device, 'collect gradient');
          batch.copy(
            subrange(gradient, 4 * (part.start - parameter.start), 4 * part.count),
            subrange(this.#scratch, 4 * (part.start - subgroup.start), 4 * part.count),
          );
          batch.submit();
        });
      });
      await optimizer.addGradient(index, this.#scratch);
    }
  }

  /** Gives the memory back. */
  dispose(): void {
    for (const tensor of this.#lent) tensor.dispose();
    for (const tensor of [...this.#tensors, this.#scratch]) tensor.dispose();
  }
}

function found<T>(value: T | undefined): T {
  if (value === undefined) fail('invariant', 'an array of parameters is missing');
  return value;
}
