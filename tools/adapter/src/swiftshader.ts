/**
 * Unpacks SwiftShader, Google's Vulkan on the CPU, from the npm package `@sparticuz/chromium`.
 *
 * The archive `bin/swiftshader.tar.br` holds the driver, its manifest and a Vulkan loader. They go
 * to a folder of this user's cache that is named by the package's version, so an upgrade makes a
 * new folder. The folder is filled under a temporary name and then renamed, so it is either absent
 * or complete, also when several processes start at once: the first rename wins, the others drop
 * theirs.
 *
 * The temporary directory is the fallback where the home directory cannot be written. Others can
 * write there too, so a folder found in it is used only where this user owns it.
 */
import { createReadStream, existsSync, mkdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createBrotliDecompress } from 'node:zlib';
import { VramError } from '@vramkit/core';
import { extract } from 'tar-fs';
import { findPackedSwiftShader } from './survey.js';

/** An unpacked SwiftShader; all paths are absolute. */
export interface UnpackedSwiftShader {
  /** Driver manifest with an absolute library path. */
  readonly manifest: string;
  /** A Vulkan loader for machines that have none. */
  readonly loader: string;
}

const driverFile = 'libvk_swiftshader.so';
const loaderFile = 'libvulkan.so.1';
const manifestFile = 'vk_swiftshader_icd.json';
const files = [driverFile, loaderFile, manifestFile];

/** Folders that may hold the cache, the preferred first. */
export function cacheRoots(env: NodeJS.ProcessEnv = process.env): string[] {
  const user = process.getuid?.() ?? 'user';
  return [
    join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'vramkit'),
    join(tmpdir(), `vramkit-${user}`),
  ];
}

function isOurs(path: string): boolean {
  const stats = statSync(path);
  return stats.isDirectory() && (process.getuid === undefined || stats.uid === process.getuid());
}

function isComplete(folder: string): boolean {
  return files.every((file) => {
    const path = join(folder, file);
    return existsSync(path) && statSync(path).size > 0;
  });
}

async function fill(folder: string, archive: string, finalFolder: string): Promise<void> {
  await pipeline(
    createReadStream(archive),
    createBrotliDecompress(),
    extract(folder, { ignore: (_name, header) => !files.includes(header?.name ?? '') }),
  );
  const original: unknown = JSON.parse(readFileSync(join(folder, manifestFile), 'utf8'));
  const icd =
    typeof original === 'object' && original !== null && 'ICD' in original ? original.ICD : {};
  const manifest = {
    file_format_version: '1.0.0',
    ICD: { ...(icd as object), library_path: join(finalFolder, driverFile) }, // foreign JSON
  };
  await writeFile(join(folder, manifestFile), JSON.stringify(manifest));
}

/** Makes `root/name` hold the unpacked archive; a complete folder is left as it is. */
async function unpackInto(root: string, name: string, archive: string): Promise<string> {
  mkdirSync(root, { recursive: true, mode: 0o700 });
  if (!isOurs(root)) throw new Error(`${root} belongs to another user`);
  const folder = join(root, name);
  if (isComplete(folder)) return folder;
  const temporary = await mkdtemp(join(root, 'unpacking-'));
  try {
    await fill(temporary, archive, folder);
    // A folder that lost a file, to a cleaner of temporary files perhaps, would block the rename.
    if (existsSync(folder) && !isComplete(folder)) rmSync(folder, { recursive: true, force: true });
    try {
      await rename(temporary, folder);
    } catch (error) {
      if (!isComplete(folder)) throw error; // else another process was first
    }
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
  return folder;
}

/**
 * Unpacks SwiftShader where that has not been done and says where it is.
 * @param roots Folders to try in order. Default: this user's cache, then the temporary directory.
 * @throws VramError `no-adapter` where the archive is missing or no folder can be written.
 */
export async function unpackSwiftShader(
  roots: readonly string[] = cacheRoots(),
): Promise<UnpackedSwiftShader> {
  const packed = findPackedSwiftShader();
  if (packed === undefined) {
    throw new VramError('no-adapter', 'npm package @sparticuz/chromium is missing; run npm ci');
  }
  const description: unknown = JSON.parse(readFileSync(packed.packageJson, 'utf8'));
  const version =
    typeof description === 'object' && description !== null && 'version' in description
      ? String(description.version)
      : 'unknown';
  const problems: unknown[] = [];
  for (const root of roots) {
    try {
      const folder = await unpackInto(root, `swiftshader-${version}`, packed.archive);
      return { manifest: join(folder, manifestFile), loader: join(folder, loaderFile) };
    } catch (error) {
      problems.push(error);
    }
  }
  const reasons = problems.map(String).join('; ');
  throw new VramError(
    'no-adapter',
    `SwiftShader could not be unpacked to ${roots.join(' or ')}: ${reasons}`,
    { context: { roots }, cause: problems[0] },
  );
}
