/**
 * What goes into and comes out of a {@link KvCacheManager}: its options and the plain results of
 * its calls.
 */
import type { ContentKeys } from './content-keys.js';
import type { KvGroup } from './kv-groups.js';
import type { KvSequencesState } from './kv-sequences.js';
import type { PrefixCacheOptions, PrefixCacheState } from './prefix-cache.js';
import type { SequenceContentState } from './sequence-content.js';
import type { BlockCopy, SlotMapping } from './slot-mapping.js';

/** Options of {@link KvCacheManager}. */
export interface KvCacheManagerOptions extends Omit<PrefixCacheOptions, 'groupCount'> {
  /** Groups of layers with tables of their own. Default: one that sees all. */
  readonly groups?: readonly KvGroup[];
  /** Whether blocks can be hit by other sequences. Default: true. */
  readonly isCaching?: boolean;
  /** Free blocks that {@link KvCacheManager.tryAllocate} leaves to running ones. Default: 0. */
  readonly watermarkBlocks?: number;
  /** Requests that make up the recent hit rate; 0 records no metrics. Default: 1000. */
  readonly metricsWindow?: number;
  /** Most blocks that {@link KvCacheManager.tryPin} holds. Default: a fifth of all. */
  readonly maxPinnedBlocks?: number;
}

/** Options of {@link KvCacheManager.tryAllocate}. */
export interface AllocateOptions {
  /** What separates the sequence from others with equal tokens. Default: nothing. */
  readonly keys?: ContentKeys;
  /**
   * Tokens behind the hit to make room for at once; the others are appended later, for prompts that
   * are prefilled in chunks. Default: all.
   */
  readonly appendTokens?: number;
  /**
   * Computes all tokens anew, for requests that need every logit of the prompt. Its blocks can
   * still be hit by others. Default: false.
   */
  readonly skipLookup?: boolean;
  /** What its blocks are worth once it is freed, from 1 to 7; higher stay longer. Default: 1. */
  readonly rank?: number;
  /** Whether it comes back after a preemption, so that its hits do not count. Default: false. */
  readonly isResumed?: boolean;
}

/** Where tokens of a step go: a mapping per group; a manager with one group takes it alone. */
export type GroupMappings = SlotMapping | readonly SlotMapping[];

/** What `matchWith` found. */
export interface FarMatch {
  /** Leading tokens that are on the device or elsewhere. */
  readonly tokenCount: number;
  /** What of them has no block: nodes in groups. */
  readonly missing: readonly { readonly node: number; readonly group: number }[];
  /** The blocks that hold the rest. */
  readonly present: Uint32Array;
}

/** What {@link KvCacheManager.tryFork} made. */
export interface ManagedFork {
  readonly sequence: number;
  /** Copies of the partial blocks, per group. */
  readonly copies: readonly (readonly BlockCopy[])[];
}

/** A {@link KvCacheManager} as plain data, for a restart: JSON takes it as it is. */
export interface KvCacheState {
  readonly version: 1;
  readonly blockCount: number;
  readonly blockSize: number;
  /** Reference count of each block, the null block included. */
  readonly references: readonly number[];
  /** Free blocks in the order in which they go. */
  readonly freeIds: readonly number[];
  readonly cache: PrefixCacheState;
  /** Tables, per group. */
  readonly sequences: readonly KvSequencesState[];
  readonly contents: readonly (readonly [number, SequenceContentState])[];
  readonly pins: readonly (readonly [number, readonly number[]])[];
}
