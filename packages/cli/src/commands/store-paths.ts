/** Local paths of `vramkit store`: folders that are stores, files that are read and written. */
import { randomUUID } from 'node:crypto';
import { open, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { fail, VramError } from '@vramkit/core';

/**
 * Checks that the folder of a path or `file:` address is there, since opening such a store makes
 * it. Other addresses are left to their stores.
 * @throws VramError `not-found`.
 */
export async function checkFolder(address: string): Promise<void> {
  const isFileUrl = /^file:/i.test(address) && URL.canParse(address);
  if (!isFileUrl && /^[a-z][a-z0-9+.-]+:/i.test(address)) return;
  const found = await stat(isFileUrl ? fileURLToPath(address) : address).catch(() => undefined);
  if (found?.isDirectory() === true) return;
  fail('not-found', `there is no folder ${address}`, { folder: address });
}

/**
 * Bytes of a file that is to be read.
 * @throws VramError `not-found`; `invalid-argument` for what is no regular file.
 */
export async function inputBytes(path: string): Promise<number> {
  const found = await stat(path).catch((cause: unknown) => {
    throw new VramError('not-found', `${path} cannot be read`, { cause, context: { file: path } });
  });
  if (found.isFile()) return found.size;
  return fail('invalid-argument', `${path} is no regular file; pipe its bytes`, { file: path });
}

/** A file that appears under its name when it is whole. */
export interface OutputFile {
  readonly file: FileHandle;
  /** Makes the bytes durable and gives the file its name. */
  commit(): Promise<void>;
  /** Removes what was not committed; idempotent. */
  discard(): Promise<void>;
}

/**
 * Opens a new file beside `path`, under a name that no other file has.
 * @throws VramError `not-found` where it cannot be written; `invalid-argument` for a folder.
 */
export async function outputFile(path: string): Promise<OutputFile> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() === true) {
    fail('invalid-argument', `${path} is a folder; name a file in it`, { file: path });
  }
  const part = `${path}.${randomUUID()}.part`;
  const file = await open(part, 'wx').catch((cause: unknown) => {
    throw new VramError('not-found', `cannot write ${path}`, { cause, context: { file: path } });
  });
  let isPart = true;
  return {
    file,
    commit: async () => {
      await file.sync();
      await file.close();
      await rename(part, path);
      isPart = false;
    },
    discard: async () => {
      if (!isPart) return;
      isPart = false;
      await file.close().catch(() => undefined); // it may be closed already
      await rm(part, { force: true });
    },
  };
}
