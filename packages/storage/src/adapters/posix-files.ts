/** Single files and folders of the posix store: written, synced, described, and cleared away. */
import { randomUUID } from 'node:crypto';
import { constants, type BigIntStats } from 'node:fs';
import { link, lstat, mkdir, open, readdir, rmdir, unlink } from 'node:fs/promises';
import { dirname, join, sep } from 'node:path';
import { splitPieces } from '../blob-body.js';
import type { BlobInfo } from '../blob-store.js';
import { codeOf } from '../store-error.js';
import type { FolderEntry } from './folder-walk.js';
import { OpenFile, realPath, type PageCache } from './open-file.js';

// One gathering write takes about so many bytes, and at most so many chunks (IOV_MAX is 1,024).
const WRITE_BYTES = 4 * 2 ** 20;
const MAX_WRITE_CHUNKS = 512;
const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;

/**
 * Removes old temporary files, and finds out whether the file system has hard links. "Now" is the
 * time of a file that is made for it.
 */
export async function prepareTemporary(folder: string, staleAfterMs: number): Promise<boolean> {
  const probe = join(folder, randomUUID());
  await (await open(probe, 'wx')).close();
  const { mtimeMs: now } = await lstat(probe);
  const hasLinks = await link(probe, `${probe}-link`).then(
    () => true,
    () => false,
  );
  for (const entry of await readdir(folder)) {
    const path = join(folder, entry);
    const stat = await lstat(path).catch(() => undefined);
    const isStale = stat !== undefined && now - stat.mtimeMs > staleAfterMs;
    // Two stores opening at once may both find it.
    if (isStale || path.startsWith(probe)) await unlink(path).catch(() => undefined);
  }
  return hasLinks;
}

/**
 * Writes a new file and syncs it.
 * @param cache Of the file system, where it has one of its own.
 */
export async function writeSynced(
  path: string,
  key: string,
  chunks: AsyncIterable<Uint8Array>,
  cache: PageCache | undefined,
): Promise<BlobInfo> {
  const file = await OpenFile.open(path, NEW_FILE, cache);
  try {
    let waiting: Uint8Array[] = [];
    let waitingBytes = 0;
    // One write is under way while the body makes the chunks of the next.
    let writing = Promise.resolve();
    const flush = async (): Promise<void> => {
      const batch = waiting;
      waiting = [];
      waitingBytes = 0;
      await writing;
      writing = writeAll(file, batch);
      writing.catch(() => undefined); // thrown by whoever awaits it
    };
    try {
      for await (const chunk of chunks) {
        waiting.push(chunk);
        waitingBytes += chunk.length;
        if (waitingBytes >= WRITE_BYTES || waiting.length >= MAX_WRITE_CHUNKS) await flush();
      }
      await flush();
    } finally {
      await writing;
    }
    await file.sync();
    return describe(key, await file.stat());
  } finally {
    await file.close();
  }
}

async function writeAll(file: OpenFile, chunks: readonly Uint8Array[]): Promise<void> {
  let rest = chunks;
  while (rest.length > 0) {
    [, rest] = splitPieces(rest, await file.write(rest)); // a write may stop short
  }
}

/** What a file says of the blob in it. */
export function describe(key: string, { size, ino, mtimeNs }: BigIntStats): BlobInfo {
  return { key, sizeBytes: Number(size), version: `${mtimeNs}-${size}-${ino}` };
}

/** Makes the names in a folder durable. */
export async function syncFolder(folder: string, cache: PageCache | undefined): Promise<void> {
  const file = await OpenFile.open(folder, constants.O_RDONLY, cache);
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Whether no symbolic link lies on the way from `root` to `path`, as far as the way exists. */
export async function isInside(
  root: string,
  path: string,
  cache: PageCache | undefined,
): Promise<boolean> {
  for (let parent = dirname(path); parent !== root; parent = dirname(parent)) {
    try {
      return (await realPath(parent, cache)) === parent;
    } catch (error) {
      if (codeOf(error) !== 'ENOENT') throw error;
    }
  }
  return true;
}

/** Makes missing folders, each synced into its parent. */
export async function makeFolders(folder: string, cache: PageCache | undefined): Promise<void> {
  const first = await mkdir(folder, { recursive: true });
  if (first === undefined) return;
  const made = folder.slice(dirname(first).length).split(sep).length - 1;
  for (let parent = dirname(folder), i = 0; i < made; parent = dirname(parent), i += 1) {
    await syncFolder(parent, cache);
  }
}

/** Removes a folder that has no file below it; whether it is gone. */
export async function removeEmptyFolders(folder: string): Promise<boolean> {
  try {
    for (const { name, isFolder } of await entriesOf(folder)) {
      if (!isFolder || !(await removeEmptyFolders(join(folder, name)))) return false;
    }
    await rmdir(folder);
    return true;
  } catch (error) {
    return codeOf(error) === 'ENOENT';
  }
}

/**
 * Removes the folders on the way from `root` to `path` that hold nothing: folders are a part of
 * keys, not things of their own, and an empty one would block a key of its name.
 */
export async function removeEmptyParents(root: string, path: string): Promise<void> {
  try {
    for (let parent = dirname(path); parent !== root; parent = dirname(parent)) {
      await rmdir(parent);
    }
  } catch (error) {
    if (!['ENOENT', 'ENOTEMPTY', 'EEXIST', 'ENOTDIR', 'EBUSY'].includes(codeOf(error))) throw error;
  }
}

/** Files and folders in a folder; symbolic links are left out. */
export async function entriesOf(folder: string): Promise<FolderEntry[]> {
  try {
    return (await readdir(folder, { withFileTypes: true }))
      .filter((entry) => entry.isFile() || entry.isDirectory())
      .map((entry) => ({ name: entry.name, isFolder: entry.isDirectory() }));
  } catch (error) {
    // Deleted meanwhile, or never there.
    if (['ENOENT', 'ENOTDIR'].includes(codeOf(error))) return [];
    throw error;
  }
}
