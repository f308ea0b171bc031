/**
 * Preemption by swapping: a sequence's blocks go to host memory, and come back later.
 *
 * Against recomputing it costs a copy each way and host memory, and saves the prefill; the
 * scheduler chooses. Moves are pairs. `prepareOut` names what to copy and keeps the device blocks
 * held until `completeOut`, so that nothing is handed out while its bytes are still read; on
 * success the sequence is suspended and its blocks are free. `prepareIn` gives it fresh blocks,
 * which it must not use, and nobody else gets, before `completeIn`. A failed move leaves the
 * sequence where it was.
 *
 * Host slots belong to one sequence each; a prefix that several share is copied for each.
 */
import { assertArgument, fail } from '@vramkit/core';
import { BlockPool } from './block-pool.js';
import type { KvCacheManager } from './kv-cache-manager.js';

/** Blocks to copy between device and host, in order: `from[i]` to `to[i]`. Plain data. */
export interface SwapMove {
  readonly sequence: number;
  readonly direction: 'out' | 'in';
  /** Per group: device blocks and host slots. */
  readonly groups: readonly { readonly from: Uint32Array; readonly to: Uint32Array }[];
}

/** Sizes of {@link KvSwap}. */
export interface KvSwapOptions {
  /** Blocks that host memory has room for. */
  readonly hostBlocks: number;
}

/** Sequences in host memory; see the notes of this module. */
export class KvSwap {
  readonly #manager: KvCacheManager;
  readonly #slots: BlockPool;
  /** Host slots of each sequence that is away, per group. */
  readonly #away = new Map<number, readonly Uint32Array[]>();
  readonly #moves = new Map<number, SwapMove>();

  /** @throws VramError `invalid-argument` where `hostBlocks` is not at least 1. */
  constructor(manager: KvCacheManager, options: KvSwapOptions) {
    this.#manager = manager;
    // Slots are numbered as blocks are, from 1 on.
    this.#slots = new BlockPool({ blockCount: options.hostBlocks + 1, blockSize: 1 });
  }

  /** Host slots that are free. */
  get freeCount(): number {
    return this.#slots.freeCount;
  }

  /** Whether a sequence is in host memory. */
  isAway(sequence: number): boolean {
    return this.#away.has(sequence);
  }

  /**
   * Begins to swap a sequence out. It must not change until {@link completeOut}.
   * @returns What to copy, or `undefined` where host memory has too little room.
   * @throws VramError `not-found`; `invalid-argument` where it is moving already.
   */
  prepareOut(sequence: number): SwapMove | undefined {
    const manager = this.#manager;
    const blocks = manager.sequences.map((_, group) =>
      manager.table(sequence, group).blocks.slice(),
    );
    assertArgument(!this.#moves.has(sequence), `sequence ${sequence} is moving`);
    const count = blocks.reduce((sum, ids) => sum + ids.length, 0);
    if (count > this.#slots.freeCount) return undefined;
    const groups = blocks.map((from) => ({ from, to: this.#slots.allocate(from.length) }));
    for (const { from } of groups) manager.pool.retain(from);
    return this.#begin({ sequence, direction: 'out', groups });
  }

  /**
   * Ends it: on success the sequence is suspended. Where it was freed or has changed meanwhile, the
   * copy is of no use and is dropped.
   * @returns Whether the sequence is away now.
   * @throws VramError `invalid-argument` for a move that is not in flight.
   */
  completeOut(move: SwapMove, outcome: 'succeeded' | 'failed'): boolean {
    this.#end(move);
    const { sequence, groups } = move;
    const manager = this.#manager;
    const isUnchanged =
      manager.has(sequence) &&
      groups.every(({ from }, group) => sameIds(from, manager.table(sequence, group).blocks));
    const goes = outcome === 'succeeded' && isUnchanged;
    if (goes) manager.suspend(sequence);
    for (const { from } of groups) manager.pool.free(from);
    if (goes)
      this.#away.set(
        sequence,
        groups.map(({ to }) => to),
      );
    else for (const { to } of groups) this.#slots.free(to);
    return goes;
  }

  /**
   * Begins to bring a sequence back: it gets fresh blocks.
   * @returns What to copy, or `undefined` where the device has too few free blocks.
   * @throws VramError `not-found` for a sequence that is not away.
   */
  prepareIn(sequence: number): SwapMove | undefined {
    const slots = this.#away.get(sequence) ?? fail('not-found', `sequence ${sequence} is not away`);
    assertArgument(!this.#moves.has(sequence), `sequence ${sequence} is moving`);
    if (!this.#manager.tryResume(sequence)) return undefined;
    const groups = slots.map((from, group) => ({
      from,
      to: this.#manager.table(sequence, group).blocks.slice(),
    }));
    for (const { to } of groups) this.#manager.pool.retain(to);
    return this.#begin({ sequence, direction: 'in', groups });
  }

  /**
   * Ends it: on success the sequence goes on and its full blocks can be hit again; on failure it is
   * suspended and still away. One that was freed meanwhile leaves nothing in host memory.
   * @throws VramError `invalid-argument` for a move that is not in flight.
   */
  completeIn(move: SwapMove, outcome: 'succeeded' | 'failed'): void {
    this.#end(move);
    const { sequence, groups } = move;
    const manager = this.#manager;
    const isThere = manager.has(sequence);
    const staysAway = outcome === 'failed' && isThere;
    if (staysAway) manager.suspend(sequence);
    for (const { to } of groups) manager.pool.free(to);
    if (staysAway) return;
    this.#away.delete(sequence);
    for (const { from } of groups) this.#slots.free(from);
    if (isThere) manager.republish(sequence);
  }

  /**
   * Ends a sequence that is away.
   * @throws VramError `not-found` where it is not; `invalid-argument` where it is moving.
   */
  discard(sequence: number): void {
    const slots = this.#away.get(sequence) ?? fail('not-found', `sequence ${sequence} is not away`);
    assertArgument(!this.#moves.has(sequence), `sequence ${sequence} is moving`);
    this.#away.delete(sequence);
    for (const ids of slots) this.#slots.free(ids);
    this.#manager.free(sequence);
  }

  #begin(move: SwapMove): SwapMove {
    this.#moves.set(move.sequence, move);
    return move;
  }

  #end(move: SwapMove): void {
    const isInFlight = this.#moves.get(move.sequence) === move;
    assertArgument(isInFlight, `no such move of sequence ${move.sequence} is in flight`);
    this.#moves.delete(move.sequence);
  }
}

function sameIds(one: Uint32Array, other: Uint32Array): boolean {
  return one.length === other.length && one.every((id, index) => other[index] === id);
}
