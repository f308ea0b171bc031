/** The end of a server that clients are still talking to. */
import { setTimeout as delay } from 'node:timers/promises';
import type { BatchEngine } from '@vramkit/example-runtime';
import type { FastifyInstance } from 'fastify';

/** Options of {@link drain}. */
export interface DrainOptions {
  /** Time for requests that run. Default: 5 s. */
  readonly graceMs?: number;
  /** Time for clients to read what is left then. Default: 1 s. */
  readonly flushMs?: number;
}

/** Resolves at the first SIGINT or SIGTERM; a second SIGINT ends the process at once. */
export function interrupted(): Promise<void> {
  return new Promise((resolve) => {
    process.once('SIGINT', () => resolve());
    // Whoever starts us may pass on its own end beside the terminal's signal.
    process.on('SIGTERM', () => resolve());
  });
}

/**
 * Closes a server and disposes its engine. New requests are refused; those that run have a grace
 * period, then they end with an error that says so, streams included.
 */
export async function drain(
  app: FastifyInstance,
  engine: BatchEngine,
  { graceMs = 5000, flushMs = 1000 }: DrainOptions = {},
): Promise<void> {
  // Connections of answered requests end too, milliseconds after the answer is sent.
  app.server.keepAliveTimeout = 1;
  const closed = Promise.resolve(app.close());
  const closedWithin = async (ms: number): Promise<boolean> => {
    const late = new AbortController();
    const timer = delay(ms, false, { signal: late.signal }).catch(() => false);
    try {
      return await Promise.race([closed.then(() => true), timer]);
    } finally {
      late.abort();
    }
  };
  if (!(await closedWithin(graceMs))) {
    await engine.dispose();
    if (!(await closedWithin(flushMs))) app.server.closeAllConnections();
  }
  await closed;
  await engine.dispose();
}
