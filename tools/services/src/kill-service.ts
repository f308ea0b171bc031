/** Kills the processes of a service by the pid files of its start script, and starts it again. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { serviceVariable } from './environment.js';
import { startService } from './service.js';
import { SERVICES, type ServiceName } from './service-list.js';

/** Which processes of which service. */
export interface KillTarget {
  readonly what: string;
  readonly service: ServiceName;
  /** The variable with the service's folder. */
  readonly folder: string;
  /** Names of its pid files in `pid/`; a service of one process has the file 'pid' and no name. */
  readonly processes: readonly string[];
  /** Only in a long run. Default: always. */
  readonly isLong?: boolean;
  /** SIGQUIT is PostgreSQL's immediate stop: it ends its children itself. Default: SIGKILL. */
  readonly signal?: 'SIGKILL' | 'SIGQUIT';
}

function readPid(path: string): number {
  return Number(readFileSync(path, 'utf8').split(' ')[0]);
}

/**
 * Kills the processes and, by SIGKILL, the children that a database server leaves.
 * Resolves once they are gone, so that a start does not take them for running.
 */
export async function killService(target: KillTarget): Promise<void> {
  const { folder, processes, signal = 'SIGKILL' } = target;
  const root = serviceVariable(folder);
  const pids = processes.flatMap((name) => {
    const path = join(root, 'pid');
    const pid = readPid(statSync(path).isDirectory() ? join(path, name) : path);
    return signal === 'SIGKILL' ? [pid, ...childrenOf(pid)] : [pid];
  });
  for (const pid of pids) process.kill(pid, signal);
  while (pids.some((pid) => stateOf(pid) !== undefined)) await sleep(10);
}

/** State and parent of a process that runs; a zombie does not. */
function stateOf(pid: number | string): { readonly parent: number } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state = '', parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return 'ZX'.includes(state) ? undefined : { parent: Number(parent) };
  } catch {
    return undefined; // it ended meanwhile
  }
}

/** Processes whose parent is `pid`. */
function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && stateOf(name)?.parent === pid)
    .map(Number);
}

/** Starts what was killed, on its old data; where it is now goes to the environment. */
export function restartService({ service, folder }: KillTarget): void {
  Object.assign(process.env, startService(SERVICES[service], serviceVariable(folder)));
}
