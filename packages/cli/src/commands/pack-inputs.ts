/** What `vramkit pack` reads beside the model: an importance matrix, and errors measured before. */
import { createHash } from 'node:crypto';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { fail } from '@vramkit/core';
import { fileSource, importanceOf, readImatrix } from '@vramkit/packer';

/** Importance of the columns of matrices, by name. */
export interface Importance {
  /** Differs where the file does. */
  readonly digest: string;
  /** Importance of a matrix's columns, or of an expert's (`name.E`); nothing where it has none. */
  of(name: string, columns: number): Float32Array | undefined;
}

/**
 * Reads an importance matrix of llama.cpp.
 * @param warn Told once of each expert that was never used.
 * @throws VramError as `readImatrix`; `of` as `importanceOf`.
 */
export async function openImportance(
  path: string,
  warn: (message: string) => void,
): Promise<Importance> {
  const source = await fileSource(path);
  try {
    const imatrix = await readImatrix(source);
    const hash = createHash('sha256');
    for (const [name, { means, counts }] of imatrix.entries) {
      hash.update(name).update(means).update(counts);
    }
    const said = new Set<string>();
    const onWarning = (message: string): void => {
      if (!said.has(message)) warn(message);
      said.add(message);
    };
    return {
      digest: hash.digest('hex'),
      of: (name, columns) => {
        if (imatrix.entries.has(name)) return importanceOf(imatrix, name, { columns, onWarning });
        const [, fused, expert] = /^(.+)\.(\d+)$/.exec(name) ?? [];
        const options = { columns, expert: Number(expert), onWarning };
        return fused === undefined ? undefined : importanceOf(imatrix, fused, options);
      },
    };
  } finally {
    await source.close();
  }
}

/** Measured errors by digest, kept in a JSON file. */
export interface KeptScores {
  readonly scores: Map<string, number>;
  /** Writes the file, whole or not at all. */
  save(): Promise<void>;
}

/**
 * Reads kept scores; a file that is not there yet has none.
 * @throws VramError `corrupt-data` where it is no such file.
 */
export async function openScores(path: string | undefined): Promise<KeptScores> {
  const scores = new Map<string, number>();
  if (path === undefined) return { scores, save: () => Promise.resolve() };
  const text = await readFile(path, 'utf8').catch(() => '{}');
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    parsed = undefined;
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    return fail('corrupt-data', `${path} holds no kept scores`, { file: path });
  }
  for (const [key, score] of Object.entries(parsed)) {
    if (!/^[0-9a-f]{64}$/.test(key) || typeof score !== 'number' || !(score >= 0)) {
      fail('corrupt-data', `${path} holds '${key.slice(0, 80)}', which is no kept score`, {
        file: path,
      });
    }
    scores.set(key, score);
  }
  return {
    scores,
    save: async () => {
      await writeFile(`${path}.part`, JSON.stringify(Object.fromEntries(scores)));
      await rename(`${path}.part`, path);
    },
  };
}

/** A time for people: `8 s`, `3 min`, `2.5 h`. */
export function formatTime(ms: number): string {
  const seconds = Math.ceil(ms / 1000);
  if (seconds < 90) return `${seconds} s`;
  return seconds < 90 * 60 ? `${Math.ceil(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}
