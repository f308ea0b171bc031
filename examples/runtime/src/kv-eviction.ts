/**
 * Drives one sequence's KV policy: reads what the policy needs, asks it, and carries out its
 * answer.
 *
 * After a prefill the policy chooses single tokens; the survivors are moved together. While
 * decoding it is asked whenever a block has filled; the norms of that one block are read then (a
 * few kilobytes once per block), its score is kept, and blocks are dropped until the policy is
 * content. A policy without needs reads nothing.
 */
import { Batch, createTensor, writeRange, type Tensor, type VramDevice } from '@vramkit/core';
import { bindPolicy, gatherTokens, type KvPolicy, type KvTokens } from '@vramkit/eviction';
import type { BlockTableView, KvSequences } from '@vramkit/block-allocator';
import type { PagedKvCache } from '@vramkit/paged-attention';

/** The cache that sequences live in. */
export interface EvictionHost {
  readonly device: VramDevice;
  readonly sequences: KvSequences;
  readonly cache: PagedKvCache;
}

/** The eviction state of one sequence. */
export class KvEviction {
  /** The policy, bound to the session's cache. */
  readonly policy: KvPolicy;
  readonly #host: EvictionHost;
  readonly #sequence: number;
  /** One score per full block of the table. */
  #scores: number[] = [];

  /**
   * @throws VramError `unsupported` where the cache cannot give what the policy needs,
   * `invalid-argument` where block sizes differ.
   */
  constructor(host: EvictionHost, sequence: number, policy: KvPolicy) {
    this.#host = host;
    this.#sequence = sequence;
    this.policy = bindPolicy(policy, {
      blockSize: host.sequences.pool.blockSize,
      provides: ['keyNorm', 'valueNorm'],
      attentionQueries: 0,
    });
  }

  /**
   * Tokens that can be appended before the policy has to be asked; `Infinity` where it never is.
   */
  tokensToDecision(): number {
    if (this.policy.granularity.decode === 'none') return Number.POSITIVE_INFINITY;
    const { blockSize, cachedTokenCount } = this.#table();
    return blockSize - (cachedTokenCount % blockSize);
  }

  /** Drops tokens beyond the budget after a prefill, and scores the blocks that remain. */
  async afterPrefill(): Promise<void> {
    const { policy } = this;
    if (policy.granularity.prefill === 'none') return;
    const table = this.#table();
    const held = await this.#describe(table, 0);
    const kept = policy.selectTokens(held);
    if (kept.length < held.tokenCount) this.#compact(kept);
    if (policy.blockScore === 'when-triggered') return;
    this.#scores = [...policy.scoreBlocks(gatherTokens(held, kept))];
  }

  /** Asks the policy where the last append filled a block, and drops the blocks it names. */
  async afterAppend(): Promise<void> {
    const { policy } = this;
    const table = this.#table();
    const { blockSize, cachedTokenCount } = table;
    const blockFilled = cachedTokenCount > 0 && cachedTokenCount % blockSize === 0;
    if (policy.granularity.decode === 'none' || !blockFilled) return;
    const isRemembered = policy.blockScore === 'when-filled';
    if (isRemembered) {
      const newest = await this.#describe(table, cachedTokenCount - blockSize);
      this.#scores.push(...policy.scoreBlocks(newest));
    }
    for (;;) {
      const { tokenCount, positions } = table;
      const progress = { tokenCount, cachedTokenCount: table.cachedTokenCount, blockFilled };
      if (!policy.mustEvict(progress)) return;
      if (!isRemembered) this.#scores = [...policy.scoreBlocks(await this.#describe(table, 0))];
      const victim = policy.selectVictim({ ...progress, positions, scores: this.#scores });
      if (victim === undefined) return;
      this.#host.sequences.dropBlock(this.#sequence, victim.victim);
      this.#scores.splice(victim.victim, 1);
    }
  }

  #table(): BlockTableView {
    return this.#host.sequences.table(this.#sequence);
  }

  /** What the policy needs of the held tokens from `start` on. */
  async #describe(table: BlockTableView, start: number): Promise<KvTokens> {
    const { layers, kvHeads } = this.#host.cache.layout;
    const tokenCount = table.cachedTokenCount - start;
    const positions = table.positions.slice(start);
    const base = { tokenCount, layers, kvHeads, positions };
    if (this.policy.needs.length === 0) return base;
    const slots = Uint32Array.from({ length: tokenCount }, (_, i) => table.slotAt(start + i));
    return { ...base, ...(await this.#host.cache.readNorms(slots)) };
  }

  #compact(kept: Uint32Array): void {
    const { device, sequences, cache } = this.#host;
    const moves = sequences.compact(this.#sequence, kept);
    const count = moves.from.length;
    if (count === 0) return;
    const slots = (label: string, values: Uint32Array): Tensor => {
      const tensor = createTensor(device, { dtype: 'u32', shape: [count], kind: 'staging', label });
      writeRange(device, tensor, values);
      return tensor;
    };
    // Disposal after the submit is safe: the driver keeps a destroyed buffer until its work is
    // done.
    using from = slots('slots to read', moves.from);
    using to = slots('slots to write', moves.to);
    const batch = new Batch(device, 'compact');
    cache.moveSlots(batch, { from, to, count });
    batch.submit();
  }
}
