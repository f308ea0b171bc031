/**
 * Files below a folder, in the order of their keys, without reading folders that hold none of them.
 *
 * A folder sorts as its name and a `/`, because that is how the keys below it go on; so the order
 * of a walk is that of whole keys: 'a.b' comes before 'a/b' (`.` is below `/`), 'a0' after it.
 * Symbolic links are not followed and not listed.
 */
import type { Dirent } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { compareKeys } from '../blob-key.js';
import { codeOf } from '../store-error.js';

/** Keys of the files that begin with `prefix` and come after `startAfter`. */
export async function* walkFiles(
  root: string,
  prefix: string,
  startAfter = '',
): AsyncGenerator<string, void, undefined> {
  yield* walk(root, prefix.slice(0, prefix.lastIndexOf('/') + 1), prefix, startAfter);
}

async function* walk(
  root: string,
  folderKey: string,
  prefix: string,
  startAfter: string,
): AsyncGenerator<string, void, undefined> {
  const names = (await entriesOf(join(root, folderKey)))
    .filter(
      (entry) => (entry.isFile() || entry.isDirectory()) && !entry.name.startsWith('.vramkit'),
    )
    .map((entry) => folderKey + entry.name + (entry.isDirectory() ? '/' : ''))
    .sort(compareKeys);
  for (const name of names) {
    const isFolder = name.endsWith('/');
    if (!name.startsWith(prefix) && !(isFolder && prefix.startsWith(name))) continue;
    // Every key below a folder comes before `startAfter` unless it comes after, or they share it.
    if (compareKeys(name, startAfter) <= 0 && !(isFolder && startAfter.startsWith(name))) continue;
    if (isFolder) yield* walk(root, name, prefix, startAfter);
    else yield name;
  }
}

async function entriesOf(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (error) {
    // Deleted meanwhile, or never there.
    if (['ENOENT', 'ENOTDIR'].includes(codeOf(error))) return [];
    throw error;
  }
}
