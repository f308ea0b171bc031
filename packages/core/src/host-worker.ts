/**
 * Starts a thread from program text: `node:worker_threads` in Node, `Worker` in a page. Text,
 * because a bundle has no file of its own to start a thread from.
 */
import { fail } from './assert.js';

/** One thread. */
export interface HostWorker {
  /** Sends a message; shared memory in it stays shared. */
  post(message: unknown): void;
  /** Calls `listener` with each message that the thread sends; registered before any work. */
  onMessage(listener: (message: unknown) => void): void;
  /** Calls `listener` once the thread has ended, on purpose or not. */
  onLost(listener: (reason: string) => void): void;
  /**
   * Whether someone waits for the thread, which then keeps the process running. At first nobody
   * does, so that an owner who failed to end its threads does not keep Node alive. A page's threads
   * end with it either way.
   */
  setBusy(isBusy: boolean): void;
  /** Ends the thread, whatever it is doing. */
  terminate(): Promise<void>;
}

/** Starts a thread that runs a program. */
export type SpawnWorker = (program: string) => HostWorker;

/** See the head of this file. @throws VramError `unsupported` where the runtime has no threads. */
export function spawnWorker(program: string): HostWorker {
  const node = globalThis.process?.getBuiltinModule?.('node:worker_threads');
  if (node !== undefined) {
    // Without the options of this process: a loader would slow the start down, and
    // --input-type=module would make a module of the program, which has no `require`.
    const worker = new node.Worker(program, { eval: true, execArgv: [] });
    worker.unref();
    return {
      post: (message) => worker.postMessage(message),
      onMessage: (listener) => {
        worker.on('message', listener);
        worker.unref(); // A listener alone would keep the process running.
      },
      onLost: (listener) => {
        worker.on('error', (error) => listener(error.message));
        worker.on('exit', (code) => listener(`exit code ${code}`));
      },
      setBusy: (isBusy) => (isBusy ? worker.ref() : worker.unref()),
      terminate: async () => void (await worker.terminate()),
    };
  }
  if (typeof Worker === 'undefined') fail('unsupported', 'this runtime has no worker threads');
  const address = URL.createObjectURL(new Blob([program], { type: 'text/javascript' }));
  const worker = new Worker(address);
  return {
    post: (message) => worker.postMessage(message),
    onMessage: (listener) => worker.addEventListener('message', ({ data }) => listener(data)),
    onLost: (listener) => worker.addEventListener('error', ({ message }) => listener(message)),
    setBusy: () => undefined,
    terminate: () => {
      worker.terminate();
      URL.revokeObjectURL(address);
      return Promise.resolve();
    },
  };
}
