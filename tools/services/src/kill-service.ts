/** Kills the processes of a service by the pid files of its start script, and starts it again. */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { serviceVariable } from './environment.js';
import { startService } from './service.js';
import { SERVICES, type ServiceName } from './service-list.js';

/** Which processes of which service. */
export interface KillTarget {
  readonly what: string;
  readonly service: ServiceName;
  /** The variable with the service's folder. */
  readonly folder: string;
  /** Names of its pid files; a service of one process has one called 'pid'. */
  readonly processes: readonly string[];
}

function readPid(path: string): number {
  return Number(readFileSync(path, 'utf8').split(' ')[0]);
}

/** SIGKILL, to the process itself and, for a database server, to the children that it leaves. */
export function killService({ folder, processes }: KillTarget): void {
  const root = serviceVariable(folder);
  for (const name of processes) {
    const path = join(root, 'pid');
    const pid = readPid(statSync(path).isDirectory() ? join(path, name) : path);
    for (const each of [pid, ...childrenOf(pid)]) process.kill(each, 'SIGKILL');
  }
}

/** Processes whose parent is `pid`. */
function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'utf8');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === pid;
      } catch {
        return false; // it ended meanwhile
      }
    })
    .map(Number);
}

/** Starts what was killed, on its old data; where it is now goes to the environment. */
export function restartService({ service, folder }: KillTarget): void {
  Object.assign(process.env, startService(SERVICES[service], serviceVariable(folder)));
}
