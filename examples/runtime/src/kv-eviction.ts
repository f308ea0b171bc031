/**
 * Drives one sequence's KV policy: reads what the policy needs, asks it, and carries out its
 * answer.
 *
 * After a prefill the policy chooses single tokens; the survivors are moved together. While
 * decoding it is asked whenever a block has filled; blocks are dropped until the policy is content.
 * A score that is the mean of a number over its block is reduced on the device, and 8 bytes of the
 * block are read. A policy without needs reads nothing.
 */
import { Batch, createTensor, writeRange, type Tensor, type VramDevice } from '@vramkit/core';
import { bindPolicy, gatherTokens, type KvPolicy, type KvTokens } from '@vramkit/eviction';
import type { BlockTableView, KvSequences } from '@vramkit/block-allocator';
import type { PagedKvCache } from '@vramkit/paged-attention';
import { KvMeasures, type MeasuresHost } from './kv-measures.js';

/** The cache that sequences live in. */
export interface EvictionHost extends MeasuresHost {
  readonly device: VramDevice;
  readonly sequences: KvSequences;
  readonly cache: PagedKvCache;
}

/** The eviction state of one sequence. */
export class KvEviction {
  /** The policy, bound to the session's cache. */
  readonly policy: KvPolicy;
  /** What is measured of the sequence, for its policy and those of forks. */
  readonly measures: KvMeasures;
  readonly #host: EvictionHost;
  readonly #sequence: number;
  /** One score per full block of the table. */
  #scores: number[] = [];

  private constructor(
    host: EvictionHost,
    sequence: number,
    policy: KvPolicy,
    measures: KvMeasures,
  ) {
    this.#host = host;
    this.#sequence = sequence;
    this.policy = policy;
    this.measures = measures;
  }

  /**
   * For an empty sequence.
   * @param forks Policies that forks of the sequence will be under.
   * @throws VramError `invalid-argument` where block sizes differ.
   */
  static create(
    host: EvictionHost,
    sequence: number,
    policy: KvPolicy,
    forks: readonly KvPolicy[] = [],
  ): KvEviction {
    const bound = bind(host, policy);
    const measures = KvMeasures.create(host, [policy, ...forks]);
    return new KvEviction(host, sequence, bound, measures);
  }

  /**
   * For a fork of this sequence, under a policy of its own.
   * @throws VramError `invalid-argument` where block sizes differ, `unsupported` where this
   * sequence was not measured for such a policy.
   */
  async fork(sequence: number, policy: KvPolicy): Promise<KvEviction> {
    const bound = bind(this.#host, policy);
    return new KvEviction(this.#host, sequence, bound, await this.measures.fork(policy));
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
    if (kept.length < held.tokenCount) {
      this.#compact(kept);
      this.measures.keep(kept);
    }
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
      // The newest block; those before it too where the sequence was cut or scoring them failed.
      const scored = Math.min(this.#scores.length, cachedTokenCount / blockSize - 1);
      const added = await this.#scoreBlocks(table, scored * blockSize);
      this.#scores = [...this.#scores.slice(0, scored), ...added];
    }
    for (;;) {
      const { tokenCount, positions } = table;
      const progress = { tokenCount, cachedTokenCount: table.cachedTokenCount, blockFilled };
      if (!policy.mustEvict(progress)) return;
      if (!isRemembered) this.#scores = await this.#scoreBlocks(table, 0);
      const victim = policy.selectVictim({ ...progress, positions, scores: this.#scores });
      if (victim === undefined) return;
      const tokens = Array.from({ length: table.cachedTokenCount }, (_, i) => i);
      const kept = tokens.filter((i) => Math.floor(i / blockSize) !== victim.victim);
      this.measures.keep(Uint32Array.from(kept));
      this.#host.sequences.dropBlock(this.#sequence, victim.victim);
      this.#scores.splice(victim.victim, 1);
    }
  }

  #table(): BlockTableView {
    return this.#host.sequences.table(this.#sequence);
  }

  /** Scores of the blocks from `start` on, all full; reduced on the device where they are means. */
  async #scoreBlocks(table: BlockTableView, start: number): Promise<number[]> {
    const { policy } = this;
    const { blockMean } = policy;
    if (blockMean === undefined) return [...policy.scoreBlocks(await this.#describe(table, start))];
    const slots = slotsFrom(table, start);
    const means = await this.measures.blockMeans(blockMean, policy, slots, table.tokenCount);
    return Array.from(means, (mean) => blockMean.factor * mean);
  }

  /** What the policy needs of the held tokens from `start` on. */
  async #describe(table: BlockTableView, start: number): Promise<KvTokens> {
    const { layers, kvHeads } = this.#host.cache.layout;
    const tokenCount = table.cachedTokenCount - start;
    const positions = table.positions.slice(start);
    const base = { tokenCount, layers, kvHeads, positions };
    const { needs } = this.policy;
    if (needs.length === 0) return base;
    const slots = slotsFrom(table, start);
    const hasNorms = needs.includes('keyNorm') || needs.includes('valueNorm');
    return {
      ...base,
      ...(hasNorms ? await this.#host.cache.readNorms(slots) : {}),
      ...(await this.measures.describe(this.policy, slots, table.tokenCount)),
    };
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

  /** Frees what was measured; idempotent. */
  dispose(): void {
    this.measures.dispose();
  }
}

function slotsFrom(table: BlockTableView, start: number): Uint32Array {
  const count = table.cachedTokenCount - start;
  return Uint32Array.from({ length: count }, (_, i) => table.slotAt(start + i));
}

function bind(host: EvictionHost, policy: KvPolicy): KvPolicy {
  return bindPolicy(policy, {
    blockSize: host.sequences.pool.blockSize,
    provides: [
      ...(['keyNorm', 'valueNorm', 'keySimilarity', 'keys', 'values'] as const),
      ...(['attention', 'queries'] as const),
    ],
    attentionQueries: Infinity,
  });
}
