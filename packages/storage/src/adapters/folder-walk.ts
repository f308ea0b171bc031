/**
 * Files below a folder, in the order of their keys, without reading folders that hold none of them.
 *
 * A folder sorts as its name and a `/`, because that is how the keys below it go on; so the order
 * of a walk is that of whole keys: 'a.b' comes before 'a/b' (`.` is below `/`), 'a0' after it.
 */
import { compareKeys, isKey } from '../blob-key.js';

/** A file or a folder, as its folder lists it. */
export interface FolderEntry {
  readonly name: string;
  readonly isFolder: boolean;
}

/**
 * Keys and entries of the files that begin with `prefix` and come after `startAfter`.
 * @param entriesOf Lists a folder by its key, which ends with '/' or is empty; one that is gone
 * meanwhile has no entries.
 */
export async function* walkFiles<Entry extends FolderEntry>(
  entriesOf: (folderKey: string) => Promise<readonly Entry[]>,
  prefix: string,
  startAfter = '',
  folderKey = prefix.slice(0, prefix.lastIndexOf('/') + 1),
): AsyncGenerator<readonly [string, Entry], void, undefined> {
  const entries = (await entriesOf(folderKey))
    .filter(({ name }) => !name.startsWith('.vramkit'))
    .map((entry) => ({ entry, key: folderKey + entry.name + (entry.isFolder ? '/' : '') }))
    .sort((a, b) => compareKeys(a.key, b.key));
  for (const { key, entry } of entries) {
    const { isFolder } = entry;
    if (!key.startsWith(prefix) && !(isFolder && prefix.startsWith(key))) continue;
    // Every key below a folder is on one side of `startAfter`, unless that is below it too.
    if (compareKeys(key, startAfter) <= 0 && !(isFolder && startAfter.startsWith(key))) continue;
    if (isFolder) yield* walkFiles(entriesOf, prefix, startAfter, key);
    else if (isKey(key)) yield [key, entry]; // else a file of another program
  }
}
