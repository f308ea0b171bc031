/**
 * Drives one sequence's KV policy: reads what the policy needs, asks it, and carries out its answer.
 *
 * After a prefill the policy chooses single tokens; the survivors are moved together. While decoding it
 * is asked whenever a block has filled; the norms of that one block are read then (a few kilobytes once
 * per block), its score is kept, and at most one block is dropped. A policy without needs reads nothing.
 */
import { Batch, createTensor, writeRange } from '@vramkit/core';
import { bindPolicy, gatherTokens, type KvPolicy, type KvTokens } from '@vramkit/eviction';
import type { BlockTableView } from '@vramkit/block-allocator';
import type { InferenceSession, Sequence } from './session.js';

/** The eviction state of one sequence. */
export class KvEviction {
  /** The policy, bound to the session's cache. */
  readonly policy: KvPolicy;
  readonly #session: InferenceSession;
  /** One score per full block of the table. */
  #scores: number[] = [];

  /**
   * @throws VramError `unsupported` where the cache cannot give what the policy needs,
   * `invalid-argument` where block sizes differ.
   */
  constructor(session: InferenceSession, policy: KvPolicy) {
    this.#session = session;
    this.policy = bindPolicy(policy, {
      blockSize: session.sequences.pool.blockSize,
      provides: ['keyNorm', 'valueNorm'],
      attentionQueries: 0,
    });
  }

  /** Tokens that can be appended before the policy has to be asked; `Infinity` where it never is. */
  tokensToDecision(sequence: Sequence): number {
    if (this.policy.granularity.decode === 'none') return Number.POSITIVE_INFINITY;
    const { blockSize, cachedTokenCount } = this.#table(sequence);
    return blockSize - (cachedTokenCount % blockSize);
  }

  /** Drops tokens beyond the budget after a prefill, and scores the blocks that remain. */
  async afterPrefill(sequence: Sequence): Promise<void> {
    const { policy } = this;
    if (policy.granularity.prefill === 'none') return;
    const table = this.#table(sequence);
    const held = await this.#describe(table, 0);
    const kept = policy.selectTokens(held);
    if (kept.length < held.tokenCount) this.#compact(sequence, kept);
    this.#scores = [...policy.scoreBlocks(gatherTokens(held, kept))];
  }

  /** Asks the policy where the last append filled a block, and drops the block it names. */
  async afterAppend(sequence: Sequence): Promise<void> {
    const { policy } = this;
    const table = this.#table(sequence);
    const { blockSize, cachedTokenCount, tokenCount } = table;
    const blockFilled = cachedTokenCount > 0 && cachedTokenCount % blockSize === 0;
    if (policy.granularity.decode === 'none' || !blockFilled) return;
    if (policy.blockScore === 'when-filled') {
      const newest = await this.#describe(table, cachedTokenCount - blockSize);
      this.#scores.push(...policy.scoreBlocks(newest));
    } else {
      this.#scores = [...policy.scoreBlocks(await this.#describe(table, 0))];
    }
    const scores = this.#scores;
    const victim = policy.selectVictim({ tokenCount, cachedTokenCount, blockFilled, scores });
    if (victim === undefined) return;
    this.#session.sequences.dropBlock(sequence.id, victim.victim);
    this.#scores.splice(victim.victim, 1);
  }

  #table(sequence: Sequence): BlockTableView {
    return this.#session.sequences.table(sequence.id);
  }

  /** What the policy needs of the held tokens from `start` on. */
  async #describe(table: BlockTableView, start: number): Promise<KvTokens> {
    const { layers, kvHeads } = this.#session.model.config;
    const tokenCount = table.cachedTokenCount - start;
    const positions = table.positions.slice(start);
    const base = { tokenCount, layers, kvHeads, positions };
    if (this.policy.needs.length === 0) return base;
    const slots = Uint32Array.from({ length: tokenCount }, (_, i) => table.slotAt(start + i));
    return { ...base, ...(await this.#session.cache.readNorms(slots)) };
  }

  #compact(sequence: Sequence, kept: Uint32Array): void {
    const { device, sequences, cache } = this.#session;
    const moves = sequences.compact(sequence.id, kept);
    const count = moves.from.length;
    if (count === 0) return;
    const slots = (label: string, values: Uint32Array) => {
      const tensor = createTensor(device, { dtype: 'u32', shape: [count], kind: 'staging', label });
      writeRange(device, tensor, values);
      return tensor;
    };
    // Disposal after the submit is safe: the driver keeps a destroyed buffer until its work is done.
    using from = slots('slots to read', moves.from);
    using to = slots('slots to write', moves.to);
    const batch = new Batch(device, 'compact');
    cache.moveSlots(batch, { from, to, count });
    batch.submit();
  }
}
