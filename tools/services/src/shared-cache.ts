/** The shared prefix cache of the example, with blocks that follow from their names. */
import { createHash } from 'node:crypto';
import type { SharedBlocksOptions } from '@vramkit/example-shared-prefix-cache';
import { testBytes } from '@vramkit/storage/testing';

/** Leases short enough to run out in a test. */
export const SHORT_LEASES = { workMs: 1500, keepMs: 3000 } satisfies SharedBlocksOptions;

/** Names of blocks that all workers want. */
export const blockNames: readonly string[] = Array.from({ length: 40 }, (_, i) =>
  createHash('sha256').update(`block ${i}`).digest('hex'),
);

/** What a block must be: nobody may ever read anything else. */
export function blockBytes(name: string): Uint8Array {
  return testBytes(60_000, parseInt(name.slice(0, 7), 16));
}
