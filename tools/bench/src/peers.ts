/**
 * Installs and runs the peers: other people's runtimes, measured beside ours.
 *
 * They live in `tools/peers` with a lock file of their own, outside the workspaces, because they
 * are large and nobody needs them to build or test. A command that does need them calls {@link
 * installPeers}, which installs once and says so. Each peer runs in a process of its own.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The folder of the whole workspace. */
export const workspaceFolder = fileURLToPath(new URL('../../..', import.meta.url));
/** The folder of the peers. */
export const peersFolder = fileURLToPath(new URL('../../peers', import.meta.url));

/** Megabytes on disk after an installation on Linux x64, the largest platform. */
const installedMegabytes = 540;

/** The part of a package.json that is read here; npm owns the format. */
interface PackageJson {
  readonly version: string;
  readonly dependencies?: Readonly<Record<string, string>>;
}

function readPackage(path: string): PackageJson | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as PackageJson;
  } catch {
    return undefined;
  }
}

/** The pinned peers that are not installed, or not in the pinned version, as `name@version`. */
export function missingPeers(folder: string = peersFolder): string[] {
  const pinned = readPackage(`${folder}/package.json`)?.dependencies ?? {};
  return Object.entries(pinned)
    .filter(([name, version]) => {
      return readPackage(`${folder}/node_modules/${name}/package.json`)?.version !== version;
    })
    .map(([name, version]) => `${name}@${version}`);
}

/** {@link installPinned} of the peers. */
export function installPeers(log: (line: string) => void): Promise<void> {
  return installPinned('tools/peers', `prebuilt binaries, about ${installedMegabytes} MB`, log);
}

/**
 * Installs the packages that a folder of the workspace pins, from its lock file, where they are
 * missing.
 *
 * No install script runs, so nothing is compiled and nothing is fetched but npm packages.
 * @param what Told to the person at the terminal: what comes, and its size on disk.
 * @throws Error where npm fails, with its exit code; what it wrote is on the terminal.
 */
export async function installPinned(
  name: string,
  what: string,
  log: (line: string) => void,
): Promise<void> {
  const folder = join(workspaceFolder, name);
  const missing = missingPeers(folder);
  if (missing.length === 0) return;
  log(`installing ${missing.join(', ')} into ${name} with npm ci: ${what} on disk, once`);
  const npm = process.env['npm_execpath'];
  const args = ['ci', '--prefix', folder, '--ignore-scripts', '--loglevel=error'];
  const code = await new Promise<number | null>((done, reject) => {
    const child =
      npm === undefined
        ? spawn('npm', args, { stdio: ['ignore', 'inherit', 'inherit'], shell: true })
        : spawn(process.execPath, [npm, ...args], { stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', reject);
    child.on('close', done);
  });
  const left = missingPeers(folder);
  if (code !== 0 || left.length > 0) {
    throw new Error(`npm ci in ${name} ended with ${code}; missing: ${left.join(', ') || 'none'}`);
  }
}
