/**
 * Worker threads that run the CPU's kernels on shared memory.
 *
 * A job is one kernel over a range. Every thread takes chunks from an atomic counter until none is
 * left and then reports; nothing spins or waits at a barrier, so a thread that the system takes
 * away for a while costs one chunk and not the job. Jobs queue in each thread, in order.
 *
 * A thread that dies ends all of them: only then is it certain that nobody writes any more. Jobs
 * under way fail with `worker-lost`, and the next job starts new threads.
 *
 * The threads' program is a string, because a bundle has no file of its own to start them from.
 */
import {
  checkInteger,
  fail,
  spawnWorker,
  VramError,
  type HostWorker,
  type SpawnWorker,
} from '@vramkit/core';
import { ADAM_WASM } from './adam/wasm-bytes.js';

/** Kernels that threads run; see adam/wasm-source.ts. */
export type HostKernel =
  'adam' | 'sum_squares' | 'narrow_bf16' | 'narrow_f16' | 'add_f32' | 'add_bf16' | 'add_f16';

/** One kernel over one range. */
export interface HostJob {
  readonly kernel: HostKernel;
  /** Byte addresses of the arrays. */
  readonly addresses: readonly number[];
  /** Bytes from one element to the next in each of them. */
  readonly strides: readonly number[];
  /** Elements. */
  readonly count: number;
  readonly scalars?: readonly number[];
}

/**
 * Elements that a thread takes at once: 28 B each, so that a chunk's arrays fit a level-2 cache.
 */
const CHUNK = 16 * 1024;
/** Control words, one counter per job under way. */
const COUNTERS = 128;

const PROGRAM = `
const port = typeof WorkerGlobalScope === 'undefined'
  ? require('node:worker_threads').parentPort : self;
let kernels, counters;
const receive = (data) => {
  if (data.module) {
    kernels = new WebAssembly.Instance(data.module, { env: { memory: data.memory } }).exports;
    counters = new Int32Array(data.memory.buffer, 0, data.counters);
    return;
  }
  const { id, slot, chunk, job } = data;
  for (;;) {
    const start = Atomics.add(counters, slot, 1) * chunk;
    if (start >= job.count) break;
    const at = job.addresses.map((address, i) => address + start * job.strides[i]);
    const length = Math.min(chunk, job.count - start);
    kernels[job.kernel](...at, length, ...(job.scalars || []));
  }
  port.postMessage({ id });
};
if (port === globalThis.self) port.onmessage = (event) => receive(event.data);
else port.on('message', receive);
`;

interface PendingJob {
  waiting: number;
  readonly resolve: () => void;
  readonly reject: (error: VramError) => void;
}

/** Options of {@link HostPool}. */
export interface HostPoolOptions {
  /** Threads. Default: 1. */
  readonly threads?: number;
  /** Starts a thread. Default: Node's worker threads, or a page's workers. */
  readonly spawn?: SpawnWorker;
}

/** Threads over one shared memory; see the head of this file. */
export class HostPool {
  readonly threads: number;
  readonly #memory: WebAssembly.Memory;
  readonly #counters: Int32Array;
  readonly #spawn: SpawnWorker;
  #jobs = new Map<number, PendingJob>();
  #module: WebAssembly.Module | undefined;
  #workers: HostWorker[] = [];
  #nextId = 0;
  #disposed = false;

  /** @throws VramError `invalid-argument` for less than one thread. */
  constructor(memory: WebAssembly.Memory, options: HostPoolOptions = {}) {
    this.#memory = memory;
    this.threads = checkInteger('threads', options.threads ?? 1, 1);
    this.#spawn = options.spawn ?? spawnWorker;
    this.#counters = new Int32Array(memory.buffer, 0, COUNTERS);
  }

  async #start(): Promise<void> {
    const bytes = Uint8Array.from(atob(ADAM_WASM), (letter) => letter.charCodeAt(0));
    this.#module ??= await WebAssembly.compile(bytes);
    this.#assertLive();
    if (this.#workers.length > 0) return;
    const workers = Array.from({ length: this.threads }, () => this.#spawn(PROGRAM));
    for (const worker of workers) {
      worker.onMessage((message) => this.#finish(message));
      worker.onLost((reason) => void this.#lose(workers, reason));
      worker.post({ module: this.#module, memory: this.#memory, counters: COUNTERS });
    }
    this.#workers = workers;
  }

  /**
   * Runs a job on all threads.
   * @throws VramError `worker-lost` where a thread dies before the job is done; `disposed`, also
   * where the pool is disposed meanwhile.
   */
  async run(job: HostJob): Promise<void> {
    this.#assertLive();
    if (this.#workers.length === 0) await this.#start();
    const id = this.#nextId++;
    const slot = id % COUNTERS;
    Atomics.store(this.#counters, slot, 0);
    // Sums of granules of 1024 need chunks of whole granules; 16 K elements are.
    return new Promise((resolve, reject) => {
      this.#jobs.set(id, { waiting: this.#workers.length, resolve, reject });
      for (const worker of this.#workers) {
        worker.setBusy(true);
        worker.post({ id, slot, chunk: CHUNK, job });
      }
    });
  }

  #finish(message: unknown): void {
    // Only our program posts here, and only this.
    const { id } = message as { id: number };
    const job = this.#jobs.get(id);
    if (job === undefined || --job.waiting > 0) return;
    this.#jobs.delete(id);
    if (this.#jobs.size === 0) for (const worker of this.#workers) worker.setBusy(false);
    job.resolve();
  }

  async #lose(workers: readonly HostWorker[], reason: string): Promise<void> {
    if (this.#workers !== workers) return;
    const error = new VramError(
      'worker-lost',
      `a worker thread of the optimizer ended: ${reason}; the step can be repeated`,
      { retryable: true, context: { reason } },
    );
    await this.#end(error);
  }

  /** Ends the threads, and then fails their jobs; later ones go to new threads. */
  async #end(error: VramError): Promise<void> {
    const [workers, jobs] = [this.#workers, this.#jobs];
    this.#workers = [];
    this.#jobs = new Map();
    await Promise.all(workers.map((worker) => worker.terminate()));
    for (const job of jobs.values()) job.reject(error);
  }

  #assertLive(): void {
    if (this.#disposed) fail('disposed', 'the worker threads of the optimizer were ended');
  }

  /** Ends the threads; jobs under way fail with `disposed`. Idempotent. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    await this.#end(new VramError('disposed', 'the worker threads of the optimizer were ended'));
  }
}
