/**
 * A process that starts anew: it opens a device and a store, loads the model from there, answers,
 * and ends. What it is to do comes in one message, what it found goes back in one.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createGpu } from '@vramkit/adapter';
import {
  isVramError,
  openDevice,
  VramError,
  type VramErrorCode,
  type VramErrorContext,
} from '@vramkit/core';
import { openStore } from '@vramkit/storage/store-url';
import { Life, type LifeRecord } from './life.js';
import { openServing, type ServeFigures, type ServeRequest } from './serve-stage.js';

/** What the process is to do. */
export interface ServeOrder {
  /** Address of the store. */
  readonly store: string;
  readonly budgetBytes: number;
  /** Begin of the life that its times belong to. */
  readonly originMs: number;
  /** When it was started, on that life's clock. */
  readonly startMs: number;
  readonly request: ServeRequest;
}

/** What the process found. */
export interface ServeReport {
  readonly figures: ServeFigures;
  readonly life: LifeRecord;
  /** Highest bytes that its device's memory counted. */
  readonly peakBytes: number;
}

type Message =
  | { readonly report: ServeReport }
  | {
      readonly code: VramErrorCode;
      /** Without the code. */
      readonly message: string;
      readonly context: VramErrorContext;
    };

/** Starts the process and waits for its report. @throws VramError what it failed with. */
export async function serveInProcess(order: ServeOrder): Promise<ServeReport> {
  // Given here, as whoever runs us may have neither.
  const execArgv = ['--conditions=@vramkit/source', '--import', 'tsx'];
  const child = fork(fileURLToPath(import.meta.url), ['serve'], {
    execArgv,
    serialization: 'json',
  });
  const failed = once(child, 'exit').then(([code]): Message => {
    const what = `the serving process ended with ${String(code)}`;
    return { code: 'invariant', message: what, context: {} };
  });
  child.send(order);
  const answered = once(child, 'message').then(([message]) => message as Message); // of this file
  const message = await Promise.race([answered, failed]);
  if ('report' in message) return message.report;
  const { code, message: what, context } = message;
  throw new VramError(code, what, { context });
}

async function serve(order: ServeOrder): Promise<ServeReport> {
  const { budgetBytes, request, startMs } = order;
  const life = new Life(order.originMs);
  const folder = await mkdtemp(join(tmpdir(), 'vramkit-serve-'));
  await using store = await openStore(order.store, {
    load: (name) => import(name),
    random: Math.random,
  });
  try {
    const { gpu } = await createGpu();
    const device = await openDevice({ gpu, budgetBytes, trace: life.trace });
    const serving = await openServing(device, store, folder, request);
    const restart = { name: 'restart', startMs, endMs: life.trace.now() };
    const figures = await life.stage('serve warm', () => serving.run());
    await serving.dispose();
    const { peakReservedBytes: peakBytes } = device.memory.stats();
    device.dispose();
    const { stages, events } = life.record();
    return { figures, life: { stages: [restart, ...stages], events }, peakBytes };
  } finally {
    await rm(folder, { recursive: true });
  }
}

function toMessage(error: unknown): Message {
  const message = error instanceof Error ? error.message : String(error);
  if (!isVramError(error)) return { code: 'invariant', message, context: {} };
  const { code, context } = error;
  return { code, message: message.slice(`${code}: `.length), context };
}

if (process.argv[2] === 'serve' && process.send !== undefined) {
  const send = (message: Message): void => {
    // Dawn keeps the process alive for as long as its entry point is reachable.
    process.send?.(message, () => process.exit());
  };
  process.once('message', (order) => {
    // A foreign boundary: the process that started this one sends it.
    serve(order as ServeOrder).then(
      (report) => send({ report }),
      (error: unknown) => send(toMessage(error)),
    );
  });
}
