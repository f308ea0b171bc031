/**
 * Where fetched models are kept, and checking what is kept there.
 *
 * A file appears in the cache by one rename out of a staging folder of its own, after its size
 * and SHA-256 were checked. Any number of processes may fetch at once: each stages apart and the
 * last rename wins with the same bytes. Staging folders of processes that died are removed after
 * a day.
 */
import { VramError } from '@vramkit/core';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { access, constants, mkdir, mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { homedir, tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';

const STAGING = 'staging-';
const STAGING_LIFE_MS = 24 * 60 * 60 * 1000;

/**
 * The first of `$XDG_CACHE_HOME/vramkit`, `~/.cache/vramkit` and a folder in the temporary
 * directory that can be created and written.
 * @throws VramError `unsupported` where none can.
 */
export async function cacheDirectory(
  environment: Readonly<Record<string, string | undefined>>,
): Promise<string> {
  const xdg = environment['XDG_CACHE_HOME'];
  const home = environment['HOME'] ?? homedir();
  const candidates = [
    ...(xdg === undefined || xdg === '' ? [] : [join(xdg, 'vramkit')]),
    ...(home === '' ? [] : [join(home, '.cache', 'vramkit')]),
    // One for each user: the folder of another cannot be written, nor trusted.
    join(tmpdir(), `vramkit-cache-${userInfo().uid}`),
  ];
  let cause: unknown;
  for (const directory of candidates) {
    try {
      await mkdir(directory, { recursive: true });
      await access(directory, constants.W_OK);
      return directory;
    } catch (error) {
      cause = error;
    }
  }
  throw new VramError('unsupported', `no writable cache folder among ${candidates.join(', ')}`, {
    cause,
    context: { candidates },
  });
}

/** A new folder in `directory` for one fetch; folders that a day has passed over are removed. */
export async function createStaging(directory: string): Promise<string> {
  for (const entry of await readdir(directory)) {
    if (!entry.startsWith(STAGING)) continue;
    const path = join(directory, entry);
    const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Infinity }));
    if (Date.now() - mtimeMs > STAGING_LIFE_MS) await rm(path, { recursive: true, force: true });
  }
  return mkdtemp(join(directory, STAGING));
}

/**
 * Whether the file at `path` has this size and SHA-256; `false` where there is none.
 * Reads at more than 1 GB/s on machines with SHA instructions.
 */
export async function isIntact(
  path: string,
  expected: { readonly sizeBytes: number; readonly sha256: string },
  signal?: AbortSignal,
): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  if (found === undefined || !found.isFile() || found.size !== expected.sizeBytes) return false;
  const hash = createHash('sha256');
  const options = signal === undefined ? {} : { signal };
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20, ...options })) {
    hash.update(chunk);
  }
  return hash.digest('hex') === expected.sha256;
}

/**
 * Refuses a fetched file that is not what was pinned.
 * @throws VramError `corrupt-data` with the sizes.
 */
export async function requireIntact(
  path: string,
  expected: { readonly sizeBytes: number; readonly sha256: string },
  signal?: AbortSignal,
): Promise<void> {
  if (await isIntact(path, expected, signal)) return;
  const found = await stat(path).catch(() => ({ size: 0 }));
  throw new VramError(
    'corrupt-data',
    `${path}: ${found.size} B do not match the pinned ${expected.sizeBytes} B and SHA-256`,
    { context: { file: path, sizeBytes: found.size, expectedBytes: expected.sizeBytes } },
  );
}
