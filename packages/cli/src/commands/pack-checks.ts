/**
 * What `vramkit pack` refuses before it reads a weight, and what it says of a plan that makes a
 * model larger.
 */
import { fail } from '@vramkit/core';
import type { ModelPlan } from '@vramkit/packer';
import type { ModelSource } from './model-source.js';

/**
 * Checks that there is something to pack.
 * @throws VramError `invalid-argument` for a packed file and for one without tensors.
 */
export function checkSource(source: ModelSource, path: string): void {
  if (source.format === 'packed') {
    fail('invalid-argument', `${path} is packed already; pack the original`, { file: path });
  }
  if (source.tensors.length === 0) {
    fail('invalid-argument', `${path} has no tensors`, { file: path });
  }
}

/** Says that a file becomes larger than its model, and which tensor grows the most. */
export function sayGrowth(plan: ModelPlan, warn: (message: string) => void): void {
  const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
  const sum = (sizes: readonly number[]): number => sizes.reduce((a, b) => a + b, 0);
  // Without header and gaps, which outweigh the weights of a small file.
  const after = plan.layout.tensors.map(({ sections }) =>
    sum(sections.map(({ begin, end }) => end - begin)),
  );
  const growth = plan.tensors.map(({ sizeBytes }, at) => (after[at] ?? 0) - sizeBytes);
  if (sum(growth) <= 0) return;
  const most = growth.indexOf(Math.max(...growth));
  const [tensor, placed] = [plan.tensors[most], plan.layout.tensors[most]];
  if (tensor === undefined || placed === undefined) return;
  const before = sum(plan.tensors.map(({ sizeBytes }) => sizeBytes));
  warn(
    `the result is larger than the input: ${megabytes(sum(after))} after ${megabytes(before)}, ` +
      `most by '${tensor.name}': ${tensor.type} of ${megabytes(tensor.sizeBytes)} is ` +
      `${placed.storage.format} of ${megabytes(after[most] ?? 0)}`,
  );
}
