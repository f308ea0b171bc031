/**
 * Finds the Vulkan drivers installed on a Linux machine, without opening one.
 *
 * A driver announces itself by a small JSON file (an "ICD manifest") in one of the directories that
 * the Vulkan loader searches. The manifest names the driver's library and the Vulkan version it was
 * built against. Only files are read here, so this is cheap, synchronous and safe to run in a
 * process that later opens another driver.
 *
 * Mesa writes its version into each library as text ("Mesa 25.0.7"). Where the library cannot be
 * found or holds no such text, the patch number of the manifest's `api_version` decides: it is the
 * revision of the Vulkan headers that the driver was built with, which was 230 in Mesa 22.3.
 *
 * Reference: Khronos, "Vulkan Loader: Driver Interface", sections on driver discovery and
 * manifests.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, isAbsolute, join, resolve } from 'node:path';

/** The part of a machine that decides which adapters it offers; a test hands in a made-up one. */
export interface Machine {
  /** As `process.platform`. */
  readonly platform: string;
  /** As `process.arch`. */
  readonly arch: string;
  /** As `process.env`. */
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Directory that stands for the root of the file system. */
  readonly root: string;
}

/** One installed Vulkan driver. */
export interface VulkanDriver {
  /** The manifest, as an absolute path. */
  readonly manifest: string;
  /** The library's path where it was found, else its name as the manifest gives it. */
  readonly library: string;
  /** Vulkan version of the manifest, such as "1.4.305". */
  readonly apiVersion: string;
  /** What executes its shaders. */
  readonly kind: 'hardware' | 'lavapipe' | 'software';
}

/** Oldest major version of Mesa whose lavapipe has what Dawn asks for. */
export const minimumMesaMajor = 23;
/** Revision of the Vulkan headers in Mesa 22.3, the last version that is too old. */
const lastUnusableHeaderPatch = 230;

const triplets: Readonly<Record<string, string>> = {
  x64: 'x86_64-linux-gnu',
  arm64: 'aarch64-linux-gnu',
};
const manifestArch: Readonly<Record<string, RegExp>> = {
  x64: /i[3-6]86|aarch64|armv7|riscv64/,
  arm64: /i[3-6]86|x86_64|amd64|armv7|riscv64/,
};

/** This machine. */
export function thisMachine(): Machine {
  return { platform: process.platform, arch: process.arch, env: process.env, root: '/' };
}

function splitPaths(value: string | undefined): string[] {
  return (value ?? '').split(':').filter((path) => path !== '');
}

function listManifests(path: string): string[] {
  try {
    if (!statSync(path).isDirectory()) return [path];
    const names = readdirSync(path).filter((name) => name.endsWith('.json'));
    return names.sort().map((name) => join(path, name));
  } catch {
    return []; // A directory that does not exist or may not be read holds no driver for this user.
  }
}

/** Manifests in search order, each once; paths of the environment as they are. */
export function findManifests(machine: Machine): string[] {
  const { env, root } = machine;
  const home = env['HOME'];
  const configHome = env['XDG_CONFIG_HOME'] ?? (home && join(home, '.config'));
  const dataHome = env['XDG_DATA_HOME'] ?? (home && join(home, '.local/share'));
  const shared = [
    ...(splitPaths(env['XDG_CONFIG_DIRS']).length > 0
      ? splitPaths(env['XDG_CONFIG_DIRS'])
      : [join(root, 'etc/xdg')]),
    join(root, 'etc'),
    ...(splitPaths(env['XDG_DATA_DIRS']).length > 0
      ? splitPaths(env['XDG_DATA_DIRS'])
      : [join(root, 'usr/local/share'), join(root, 'usr/share')]),
    join(root, 'usr/local/share'),
    join(root, 'usr/share'),
    join(root, 'run/opengl-driver/share'), // NixOS
  ];
  const named = [
    ...splitPaths(env['VK_DRIVER_FILES']),
    ...splitPaths(env['VK_ICD_FILENAMES']),
    ...splitPaths(env['VK_ADD_DRIVER_FILES']),
  ];
  const directories = [configHome, ...shared, dataHome]
    .filter((path): path is string => path !== undefined && path !== '')
    .map((path) => join(path, 'vulkan/icd.d'));
  const manifests = [...named, ...directories].flatMap(listManifests);
  return [...new Set(manifests.map((path) => resolve(path)))];
}

function findLibrary(name: string, manifest: string, machine: Machine): string {
  if (isAbsolute(name)) return join(machine.root, name);
  if (name.includes('/')) return resolve(dirname(manifest), name);
  const triplet = triplets[machine.arch] ?? '';
  const system = ['usr/lib', 'lib', 'usr/local/lib'].flatMap((path) => [join(path, triplet), path]);
  const directories = [
    ...splitPaths(machine.env['LD_LIBRARY_PATH']),
    ...[...system, 'usr/lib64', 'lib64', 'usr/local/lib64'].map((path) => join(machine.root, path)),
  ];
  return directories.map((path) => join(path, name)).find((path) => existsSync(path)) ?? name;
}

function classify(manifest: string, library: string): VulkanDriver['kind'] {
  const names = `${manifest.split('/').at(-1) ?? ''} ${library.split('/').at(-1) ?? ''}`;
  if (/lvp|lavapipe/.test(names)) return 'lavapipe';
  return /swiftshader|gfxstream|null_drv|mock/i.test(names) ? 'software' : 'hardware';
}

function readManifest(manifest: string, machine: Machine): VulkanDriver | undefined {
  if (manifestArch[machine.arch]?.test(manifest.split('/').at(-1) ?? '') === true) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(manifest, 'utf8'));
  } catch {
    return undefined; // The loader skips an unreadable manifest, so it offers no driver.
  }
  if (typeof parsed !== 'object' || parsed === null || !('ICD' in parsed)) return undefined;
  const icd = parsed.ICD;
  if (typeof icd !== 'object' || icd === null || !('library_path' in icd)) return undefined;
  if (typeof icd.library_path !== 'string') return undefined;
  const apiVersion = 'api_version' in icd ? String(icd.api_version) : '';
  const library = findLibrary(icd.library_path, manifest, machine);
  return { manifest, library, apiVersion, kind: classify(manifest, icd.library_path) };
}

/** Every Vulkan driver that the loader of this machine would see. */
export function findVulkanDrivers(machine: Machine = thisMachine()): VulkanDriver[] {
  return findManifests(machine).flatMap((manifest) => readManifest(manifest, machine) ?? []);
}

/** The version in a text such as "Mesa 22.3.6 (LLVM 15.0.6)", or `undefined`. */
export function parseMesaVersion(text: string): string | undefined {
  return /Mesa (\d+\.\d+\.\d+)/.exec(text)?.[1];
}

/** The Mesa version that is written into a driver's library, or `undefined`. */
export function readMesaVersion(library: string): string | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(library);
  } catch {
    return undefined;
  }
  for (let at = bytes.indexOf('Mesa '); at !== -1; at = bytes.indexOf('Mesa ', at + 1)) {
    const version = parseMesaVersion(bytes.toString('latin1', at, at + 24));
    if (version !== undefined) return version;
  }
  return undefined;
}

/** Whether Dawn can run on a lavapipe driver, and the version that says so. */
export function judgeLavapipe(driver: VulkanDriver): { usable: boolean; version: string } {
  const version = readMesaVersion(driver.library);
  if (version !== undefined) {
    return { usable: Number.parseInt(version, 10) >= minimumMesaMajor, version: `Mesa ${version}` };
  }
  const patch = Number(driver.apiVersion.split('.')[2] ?? Number.NaN);
  return {
    usable: patch > lastUnusableHeaderPatch,
    version: `Vulkan headers ${driver.apiVersion || 'unknown'}`,
  };
}
