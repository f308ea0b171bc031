/**
 * What `vramkit pack` refuses before it reads a weight, and what it says of a plan that makes a
 * model larger.
 */
import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fail } from '@vramkit/core';
import { isDense, type ModelPlan } from '@vramkit/packer';
import type { ModelSource } from './model-source.js';
import { isKept, type PackRequest } from './pack-options.js';

/**
 * Checks that there is something to pack.
 * @throws VramError `invalid-argument` for a packed file, for one without tensors, and for matrices
 * that are quantized already where that was not asked for.
 */
export function checkSource(source: ModelSource, request: PackRequest): void {
  const path = request.model;
  if (source.format === 'packed') {
    fail('invalid-argument', `${path} is packed already; pack the original`, { file: path });
  }
  if (source.tensors.length === 0) {
    fail('invalid-argument', `${path} has no tensors`, { file: path });
  }
  if (request.requantize) return;
  const matrices = source.tensors.filter(({ name, shape }) => !isKept(request, name, shape));
  const quantized = matrices.filter(({ type }) => !isDense(type));
  const [first] = quantized;
  if (first === undefined) return;
  const count = `${quantized.length} of ${matrices.length} matrices`;
  fail(
    'invalid-argument',
    `${count} are quantized already, such as '${first.name}', ${first.type}: ` +
      '--requantize packs them again, --keep leaves them as they are',
    { tensor: first.name, type: first.type },
  );
}

/** Device and inode of a file, the same for all its names; nothing where there is none. */
async function fileIdentity(path: string): Promise<string | undefined> {
  const found = await stat(path, { bigint: true }).catch(() => undefined);
  return found === undefined ? undefined : `${found.dev} ${found.ino}`;
}

/**
 * Checks that the file can be written and is none of those that are read.
 * @throws VramError `invalid-argument` for a folder or a file of the model, `not-found` where the
 * folder of the file does not exist.
 */
export async function checkOutput(request: PackRequest, source: ModelSource): Promise<void> {
  const { out, imatrix, scores } = request;
  const found = await stat(out).catch(() => undefined);
  if (found?.isDirectory() === true) {
    fail('invalid-argument', `--out ${out} is a folder; name a file in it`, { file: out });
  }
  const parent = await stat(dirname(out)).catch(() => undefined);
  if (parent?.isDirectory() !== true) {
    fail('not-found', `cannot write ${out}: there is no folder ${dirname(out)}`, { file: out });
  }
  const written = new Map<string | undefined, string>();
  const names = [out, `${out}.part`, `${out}.part.journal`];
  if (scores !== undefined) names.push(scores, `${scores}.part`);
  for (const name of names) written.set(await fileIdentity(name), name);
  for (const file of [...source.files, ...(imatrix === undefined ? [] : [imatrix])]) {
    const identity = await fileIdentity(file);
    const name = identity === undefined ? undefined : written.get(identity);
    if (name === undefined) continue;
    fail('invalid-argument', `${name} would overwrite ${file}, which is read; name another file`, {
      file,
    });
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
