/**
 * Kills this process at one call that a store makes of its driver: system calls of files,
 * statements of SQL, requests of HTTP, operations of librados. So a put can be stopped at each of
 * its steps.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import { syncBuiltinESMExports } from 'node:module';
import type { StoreKind } from './stores.js';

/** Whether the process ends instead of the call, or as soon as the call was made. */
export type KillMoment = 'before' | 'during';

type Functions = Record<string, (...values: unknown[]) => unknown>;

/** Calls from {@link armKill} on; `undefined` before it. */
const steps: { count?: number; isEnding: boolean } = { isEnding: false };

function end(): void {
  process.kill(process.pid, 'SIGKILL');
}

/** Counts calls from now on, from 1. */
export function armKill(): void {
  steps.count = 0;
}

/** Resolves where the step was not reached; where it was, the process ends meanwhile. */
export function outlive(): Promise<void> {
  return steps.isEnding ? new Promise(() => undefined) : Promise.resolve();
}

/** Ends the process in about a millisecond, also in the middle of a call that blocks its thread. */
function endSoon(kind: StoreKind): void {
  steps.isEnding = true;
  if (kind === 'sqlite') spawn('sh', ['-c', `kill -9 ${process.pid}`], { stdio: 'ignore' });
  else setTimeout(end, 1);
}

/** Puts itself before the driver's calls; call it before the module of the store is loaded. */
export async function watchDriver(kind: StoreKind, step: number, moment: KillMoment) {
  const around = (call: Functions[string]) => {
    const watched = function (this: unknown, ...values: unknown[]): unknown {
      if (steps.count === undefined || (steps.count += 1) !== step) {
        return call.apply(this, values);
      }
      if (moment === 'before') end();
      endSoon(kind);
      return call.apply(this, values);
    };
    // With what `promisify` finds there.
    return Object.defineProperties(watched, Object.getOwnPropertyDescriptors(call));
  };
  const watch = (owner: object, ...names: string[]): void => {
    const functions = owner as Functions; // the names are those of functions that it has
    for (const name of names) {
      const call = functions[name];
      if (call === undefined) throw new Error(`the driver has no ${name}`);
      functions[name] = around(call);
    }
  };
  switch (kind) {
    case 'posix':
      watch(fs, 'open', 'openSync', 'writev', 'fsync', 'close', 'closeSync');
      watch(fs.promises, 'mkdir', 'rename', 'link', 'unlink');
      syncBuiltinESMExports();
      return;
    case 'sqlite': {
      const { default: Database } = await import('libsql');
      watch(Database.prototype as object, 'exec');
      const statement = new Database(':memory:').prepare('SELECT 1');
      watch(Object.getPrototypeOf(statement) as object, 'run');
      return;
    }
    case 'pg':
      watch((await import('pg')).default.Client.prototype, 'query');
      return;
    case 's3':
      watch((await import('@aws-sdk/client-s3')).S3Client.prototype, 'send');
      return;
    case 'webhdfs':
      watch(globalThis, 'fetch');
      watch(http, 'request');
      return;
    case 'rados': {
      const { default: koffi } = await import('koffi');
      const load = koffi.load.bind(koffi);
      const watched = (path: string) => {
        const library = load(path);
        const func = (prototype: string): unknown => {
          const call = library.func(prototype);
          watch(call, 'async');
          return call;
        };
        return { func };
      };
      Object.assign(koffi, { load: watched });
    }
  }
}
