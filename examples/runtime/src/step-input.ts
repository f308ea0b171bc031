/** What a step of the forward pass is given: rows of new tokens, and whose they are. */
import type { Batch } from '@vramkit/core';
import type { KvMeasures } from './kv-measures.js';

/** What one sequence adds to a step. */
export interface StepSequence {
  /** New tokens: its rows of the step. */
  readonly tokens: number;
  /** Block ids of the sequence, the new tokens' blocks included. */
  readonly blocks: Uint32Array;
  /** Tokens cached before this step. */
  readonly contextLength: number;
  /** What the step is measured for; begun. Default: nothing. */
  readonly measures?: KvMeasures;
}

/** Inputs of a step on the host; arrays are read before the call returns. */
export interface StepInput {
  /** Token ids, or 'device' where an earlier step's argmax left one in place. */
  readonly ids: Uint32Array | 'device';
  /** Position of each token, for the rotation. */
  readonly positions: Uint32Array;
  /** Slot of each token. */
  readonly slots: Uint32Array;
  /** Whose rows they are, in order; leading ones with one token attend together. */
  readonly sequences: readonly StepSequence[];
  /** Called behind the attention of each layer, to record copies of what the workspace holds. */
  readonly observe?: (batch: Batch, layer: number) => void;
}

/** Leading sequences with one new token. */
export function decodingCount({ sequences }: StepInput): number {
  const first = sequences.findIndex(({ tokens }) => tokens !== 1);
  return first < 0 ? sequences.length : first;
}
