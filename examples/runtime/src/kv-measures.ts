/**
 * What is measured of one sequence for KV policies, beside the norms that the cache always keeps.
 *
 * Attention is added up by the attention kernels of each step, per length of the window that a
 * policy asks for; query statistics by a kernel over the queries of prompts, before their rotation.
 * Keys, values and likeness of keys are read from the cache when a decision falls. A sequence that
 * measures nothing records nothing.
 *
 * A fork starts from the measures of the sequence that it comes from, so a prompt that is read once
 * for several policies measures for all of them: `InferenceSession.create` takes their needs.
 */
import { fail, type Batch } from '@vramkit/core';
import { averageRotation, rotateQueries } from '@vramkit/eviction';
import type { KvBlockMean, KvPolicy, KvQueries, KvTokens } from '@vramkit/eviction';
import {
  AttentionRecord,
  QueryMoments,
  type PagedKvCache,
  type PrefillReceived,
  type QueryStatistics,
  type StridedRows,
} from '@vramkit/paged-attention';
import { inverseFrequencies } from './kernels/rope.cpu.js';
import type { ModelConfig } from './model-config.js';

/** The cache and the model of a sequence. */
export interface MeasuresHost {
  readonly cache: PagedKvCache;
  readonly model: { readonly config: ModelConfig };
}

/** One step of a sequence, before it is recorded. */
export interface MeasuredStep {
  /** Position of the first new token. */
  readonly start: number;
  readonly count: number;
  /** Tokens cached before the step. */
  readonly contextLength: number;
  /** Position behind the prompt that the step is part of, if any. */
  readonly promptEnd?: number;
}

/** First tokens whose queries are unlike all others, and left out of the statistics. */
const SINK_TOKENS = 4;
/** Positions ahead over which expected queries are averaged. */
const EXPECTED_POSITIONS = 512;

/** Measures of one sequence; the owner disposes it. */
export class KvMeasures {
  readonly #host: MeasuresHost;
  readonly #records: readonly AttentionRecord[];
  readonly #moments: QueryMoments | undefined;
  /** Statistics of the sequence that this one was forked from. */
  readonly #inherited: QueryStatistics | undefined;
  #step: MeasuredStep | undefined;
  #cachedTokens = 0;

  private constructor(
    host: MeasuresHost,
    records: readonly AttentionRecord[],
    moments: QueryMoments | undefined,
    inherited?: QueryStatistics,
  ) {
    this.#host = host;
    this.#records = records;
    this.#moments = moments;
    this.#inherited = inherited;
  }

  /**
   * For a sequence that starts empty.
   * @param policies Those that the sequence, or a fork of it, will be under.
   */
  static create(host: MeasuresHost, policies: readonly KvPolicy[]): KvMeasures {
    const windows = new Set(
      policies.filter(needsAttention).map(({ attentionQueries }) => attentionQueries),
    );
    const records = [...windows].map((queries) => new AttentionRecord(host.cache, { queries }));
    const { layers, heads, headDim } = host.model.config;
    const moments = policies.some(({ needs }) => needs.includes('queries'))
      ? new QueryMoments(host.cache.device, { layers, heads, headDim })
      : undefined;
    return new KvMeasures(host, records, moments);
  }

  /**
   * For a fork under `policy`: its own copy of what the policy needs.
   * @throws VramError `unsupported` where this sequence was not measured for such a policy.
   */
  async fork(policy: KvPolicy): Promise<KvMeasures> {
    const { name, needs, attentionQueries: queries } = policy;
    const record = this.#records.find((each) => each.queries === queries);
    const statistics = needs.includes('queries') ? await this.#statistics() : undefined;
    const lacksAttention = needsAttention(policy) && record === undefined;
    if (lacksAttention || (needs.includes('queries') && statistics === undefined)) {
      fail(
        'unsupported',
        `the sequence was not measured for policy '${name}'; name the policy when it is created`,
        { policy: name, needs },
      );
    }
    const records = needsAttention(policy) && record !== undefined ? [record.fork()] : [];
    const fork = new KvMeasures(this.#host, records, undefined, statistics);
    fork.#cachedTokens = this.#cachedTokens;
    return fork;
  }

  /** Makes room for a step; before the step is recorded. */
  beginStep(step: MeasuredStep): void {
    // Tokens that were taken back leave sums behind, which the next ones must not inherit.
    if (step.contextLength < this.#cachedTokens) {
      this.keep(Uint32Array.from({ length: step.contextLength }, (_, i) => i));
    }
    for (const record of this.#records) record.prepare(step);
    this.#step = step;
    this.#cachedTokens = step.contextLength + step.count;
  }

  /** What the attention of the step adds to, in one layer. */
  received(layer: number): PrefillReceived[] {
    return this.#records.flatMap((record) => record.received(layer));
  }

  /** Records the statistics of a layer's queries, which are not rotated yet. */
  addQueries(batch: Batch, layer: number, queries: StridedRows): void {
    const step = this.#step;
    if (this.#moments === undefined || step?.promptEnd === undefined) return;
    const skipped = Math.min(step.count, Math.max(0, SINK_TOKENS - step.start));
    const offset = queries.offset + skipped * queries.rowStride;
    const rows = step.count - skipped;
    if (rows > 0) this.#moments.add(batch, layer, { ...queries, offset }, rows);
  }

  /** What `policy` needs of the tokens in `slots`, all that the sequence holds, beside norms. */
  async describe(
    policy: KvPolicy,
    slots: Uint32Array,
    tokenCount: number,
  ): Promise<Partial<KvTokens>> {
    const { cache } = this.#host;
    const needs = new Set(policy.needs);
    const similarity = needs.has('keySimilarity');
    const queries = needs.has('queries') ? await this.#expected(tokenCount) : undefined;
    return {
      ...(needs.has('keys') || needs.has('values') ? await this.#keysAndValues(slots) : {}),
      ...(similarity ? { keySimilarity: await cache.readKeySimilarity(slots) } : {}),
      ...(needs.has('attention')
        ? { attention: await this.#attention(policy, slots, tokenCount) }
        : {}),
      ...(queries === undefined ? {} : { queries }),
    };
  }

  /**
   * The declared mean of `policy` over each block that `slots` make up, in their order, reduced on
   * the device.
   */
  async blockMeans(
    { statistic, epsilon }: KvBlockMean,
    policy: KvPolicy,
    slots: Uint32Array,
    tokenCount: number,
  ): Promise<Float64Array> {
    const { cache } = this.#host;
    const { blockSize } = cache.layout;
    const count = Math.floor(slots.length / blockSize);
    if (statistic === 'keySimilarity') return cache.readKeySimilarityMeans(slots);
    if (statistic === 'attention') return this.#record(policy).readBlockMeans(tokenCount, count);
    const blocks = Uint32Array.from({ length: count }, (_, block) =>
      Math.floor((slots[block * blockSize] ?? 0) / blockSize),
    );
    return cache.readNormMeans(blocks, { statistic, epsilon });
  }

  #attention(policy: KvPolicy, slots: Uint32Array, tokenCount: number): Promise<Float32Array> {
    return this.#record(policy).read(tokenCount, slots.length);
  }

  #record(policy: KvPolicy): AttentionRecord {
    const record = this.#records.find(({ queries }) => queries === policy.attentionQueries);
    return record ?? fail('invariant', `nothing was recorded for '${policy.name}'`);
  }

  async #keysAndValues(slots: Uint32Array): Promise<Pick<KvTokens, 'keys' | 'values'>> {
    const { cache } = this.#host;
    const { layers, kvHeads, headDim } = cache.layout;
    const width = kvHeads * headDim;
    const keys = new Float32Array(slots.length * layers * width);
    const values = new Float32Array(keys.length);
    // All reads are on their way before the first is waited for.
    const reads = Array.from({ length: layers }, (_, layer) => cache.readKv(layer, slots));
    for (const [layer, read] of (await Promise.all(reads)).entries()) {
      for (let token = 0; token < slots.length; token++) {
        const to = (token * layers + layer) * width;
        keys.set(read.keys.subarray(token * width, (token + 1) * width), to);
        values.set(read.values.subarray(token * width, (token + 1) * width), to);
      }
    }
    return { keys, values };
  }

  async #statistics(): Promise<QueryStatistics | undefined> {
    return this.#inherited ?? (await this.#moments?.read());
  }

  async #expected(tokenCount: number): Promise<KvQueries | undefined> {
    const { headDim, ropeTheta, ropeScaling, ropeStyle } = this.#host.model.config;
    const statistics = await this.#statistics();
    if (statistics === undefined) return undefined;
    const frequencies = inverseFrequencies(headDim, ropeTheta, ropeScaling);
    const span = { start: tokenCount, count: EXPECTED_POSITIONS };
    return rotateQueries(statistics, averageRotation(frequencies, span), ropeStyle);
  }

  /** Only these tokens stay: ascending indices of the held ones. */
  keep(kept: Uint32Array): void {
    for (const record of this.#records) record.keep(kept);
    this.#cachedTokens = kept.length;
  }

  /** Frees what was measured; idempotent. */
  dispose(): void {
    for (const record of this.#records) record.dispose();
    this.#moments?.dispose();
  }
}

function needsAttention(policy: KvPolicy): boolean {
  return policy.needs.includes('attention');
}
