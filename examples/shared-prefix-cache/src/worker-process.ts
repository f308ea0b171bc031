/** A worker as seen from the process that started it: a prompt in, an answer out, a line each. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { WorkerAnswer } from './worker.js';

/** A process of its own. */
export class WorkerProcess {
  readonly #process: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(model: string, place: readonly string[]) {
    const args = [...process.execArgv, join(import.meta.dirname, 'worker.ts'), model, ...place];
    this.#process = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    const { stdout } = this.#process;
    if (stdout === null) throw new Error('the output of a worker is a pipe');
    this.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  /** The next line of output. */
  async line(): Promise<string> {
    const next = await this.#lines.next();
    if (next.done === true) throw new Error('a worker ended too early');
    return next.value;
  }

  /** Begins an answer. */
  send(prompt: string): void {
    this.#process.stdin?.write(`${prompt}\n`);
  }

  async ask(prompt: string): Promise<WorkerAnswer> {
    this.send(prompt);
    return JSON.parse(await this.line()) as WorkerAnswer; // of our own worker
  }

  async kill(): Promise<void> {
    this.#process.kill('SIGKILL');
    if (this.#process.signalCode === null) await once(this.#process, 'exit');
  }

  async end(): Promise<void> {
    this.#process.stdin?.end();
    if (this.#process.exitCode === null) await once(this.#process, 'exit');
  }
}

/** Starts a worker and waits until it is ready; `place` is what it takes after the model. */
export async function startWorker(
  model: string,
  place: readonly string[] = [],
): Promise<WorkerProcess> {
  const worker = new WorkerProcess(model, place);
  await worker.line();
  return worker;
}
