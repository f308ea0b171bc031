/**
 * One service: installed from Debian where it is missing, started and stopped by its scripts.
 *
 * `bin/NAME-up FOLDER` prints `export NAME=value` lines and returns when the service answers;
 * `bin/NAME-down FOLDER --purge` stops by pid files what that call started, and nothing else.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** What a service needs. */
export interface Service {
  /** Of its scripts. */
  readonly name: string;
  /** Programs that tell whether it is installed. */
  readonly programs: readonly string[];
  /** Debian packages that bring them. */
  readonly packages: readonly string[];
  /** Settings of its start script. */
  readonly environment: Readonly<Record<string, string>>;
  /** Only where it is named. Default: always. */
  readonly isOnDemand?: boolean;
}

const bin = join(import.meta.dirname, '../bin');

function hasProgram(name: string): boolean {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => existsSync(join(folder, name)));
}

/** Whether this is Debian 12, whose packages the scripts were tried with. */
function isDebian12(): boolean {
  try {
    return /^VERSION_CODENAME=bookworm$/m.test(readFileSync('/etc/os-release', 'utf8'));
  } catch {
    return false;
  }
}

/** Installs what is missing; gives the reason where that cannot be. */
export function install(service: Service): string | undefined {
  const missing = service.programs.filter((program) => !hasProgram(program));
  if (missing.length === 0) return undefined;
  const what = `${missing.join(', ')} not installed`;
  if (process.getuid?.() !== 0) return `${what}, and not root`;
  if (!isDebian12()) return `${what}, and not Debian 12`;
  console.log(`services: installing ${service.packages.join(' ')}`);
  const apt = (...args: readonly string[]): boolean =>
    spawnSync('apt-get', ['-qq', '-o', 'DPkg::Lock::Timeout=300', ...args], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    }).status === 0;
  // Daemons that a package would start are not wanted: the scripts start their own.
  const args = ['install', '-y', '--no-install-recommends', ...service.packages];
  if (!apt(...args) && !(apt('update') && apt(...args))) return `${what}, and apt-get failed`;
  return undefined;
}

/** Starts a service in `folder`; gives the variables that it printed. */
export function startService(service: Service, folder: string): Record<string, string> {
  const text = execFileSync(join(bin, `${service.name}-up`), [folder], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, ...service.environment },
  });
  const pairs = [...text.matchAll(/^export ([A-Z0-9_]+)='?([^'\n]*)'?$/gm)];
  return Object.fromEntries(pairs.map(([, name = '', value = '']) => [name, value]));
}

/** Stops it and removes its folder. A failure is said, not thrown: others must be stopped too. */
export function stopService(service: Service, folder: string): void {
  const { status } = spawnSync(join(bin, `${service.name}-down`), [folder, '--purge'], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  if (status !== 0) console.error(`services: ${service.name}-down ended with ${status}`);
}
