/**
 * Random life of sequences that share blocks: appends, forks, evictions of blocks and of tokens.
 *
 * Beside the cache stands what each sequence must hold: every token it ever saw with its K and V,
 * which of them it still holds, and the weights of every query. After each operation all sequences
 * are compared, those that it did not touch included.
 */
import { BlockPool, KvSequences } from '@vramkit/block-allocator';
import { compareArrays, type SeededRandom } from '@vramkit/core/testing';
import { AttentionRecord } from '../index.js';
import { at, layerOf } from '../kernels/host-kv.cpu.js';
import type { HostRows } from '../kernels/write-kv.cpu.js';
import { keyElement, valueElement } from '../kv-layout.js';
import { ATTENTION_TOLERANCE, type CacheFixture } from './cache-fixture.js';

/** A token as it was written: `[kvHeads, headDim]` of the layer that attends. */
interface Token {
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

/** What one query gave: weights `[kvHeads]` by position of the token. */
interface Query {
  readonly position: number;
  /** Start of the prompt that it was part of, or its own position. */
  readonly promptStart: number;
  readonly weights: ReadonlyMap<number, Float64Array>;
}

interface Sequence {
  readonly id: number;
  readonly record: AttentionRecord;
  /** By position, evicted ones included. */
  readonly tokens: Token[];
  readonly queries: Query[];
}

/** The layer that the walk attends in; the other one stays without queries. */
const LAYER = 1;

/** See the head of the file. */
export class SequenceWalk {
  readonly #fixture: CacheFixture;
  readonly #random: SeededRandom;
  readonly #sequences: KvSequences;
  readonly #all: Sequence[] = [];
  readonly #heads: number;
  readonly #window: number;

  constructor(
    fixture: CacheFixture,
    random: SeededRandom,
    options: { readonly heads: number; readonly window: number },
  ) {
    this.#fixture = fixture;
    this.#random = random;
    this.#heads = options.heads;
    this.#window = options.window;
    const { blockCount, blockSize } = fixture.cache.layout;
    this.#sequences = new KvSequences(new BlockPool({ blockCount, blockSize }));
  }

  /** One random operation, and the comparison of everything. */
  async step(): Promise<string> {
    const { cache } = this.#fixture;
    const free = this.#sequences.pool.freeCount;
    const sequence = this.#all[this.#random.integer(0, Math.max(0, this.#all.length - 1))];
    if (sequence === undefined || (this.#all.length < 2 && free > 12)) return this.#create();
    const dice = this.#random.integer(0, 9);
    const table = this.#sequences.table(sequence.id);
    if (free < 8 || (dice === 0 && this.#all.length > 2)) return this.#free(sequence);
    if (dice <= 1 && this.#all.length < 4) return this.#fork(sequence);
    const full = Math.floor(table.cachedTokenCount / cache.layout.blockSize);
    if (dice <= 3 && full > 1) return this.#drop(sequence, this.#random.integer(0, full - 1));
    if (dice === 4 && table.cachedTokenCount > 3) return this.#compact(sequence);
    const length = dice <= 6 ? this.#random.integer(2, 20) : 1;
    return this.#append(sequence, length);
  }

  async #create(): Promise<string> {
    const record = new AttentionRecord(this.#fixture.cache, { queries: this.#window });
    const sequence = { id: this.#sequences.create(), record, tokens: [], queries: [] };
    this.#all.push(sequence);
    return this.#append(sequence, this.#random.integer(2, 40));
  }

  async #append(sequence: Sequence, count: number): Promise<string> {
    const { cache, host } = this.#fixture;
    const { kvHeads, headDim } = cache.layout;
    const table = this.#sequences.table(sequence.id);
    const [start, contextLength] = [table.tokenCount, table.cachedTokenCount];
    const { slots, copies } = this.#sequences.append(sequence.id, count);
    this.#fixture.copy(copies);
    this.#fixture.write([...slots]);
    const data = layerOf(host, LAYER);
    for (const slot of slots) {
      const read = (element: typeof keyElement): Float32Array =>
        Float32Array.from({ length: kvHeads * headDim }, (_, i) =>
          at(data, element(cache.layout, slot, Math.floor(i / headDim), i % headDim)),
        );
      sequence.tokens.push({ keys: read(keyElement), values: read(valueElement) });
    }
    const isPrompt = count > 1;
    const span = { start, count, ...(isPrompt ? { promptEnd: start + count } : {}) };
    sequence.record.prepare({ ...span, contextLength });
    let rows: HostRows | undefined;
    const options = {
      heads: this.#heads,
      layer: LAYER,
      record: sequence.record,
      onQueries: (queries: HostRows) => (rows = queries),
    };
    const blocks = [...table.blocks];
    const actual = isPrompt
      ? await this.#fixture.prefill(blocks, { ...options, tokens: count, contextLength })
      : await this.#fixture.decode([{ table: blocks, length: contextLength + 1 }], options);
    if (rows === undefined) throw new Error('no queries');
    const expected = new Float32Array(actual.length);
    for (let i = 0; i < count; i++) {
      const query = this.#attend(sequence, rows, i, start + i, expected);
      sequence.queries.push({ ...query, promptStart: start });
    }
    compareArrays(actual, expected, { ...ATTENTION_TOLERANCE, label: 'masked attention' });
    await this.#compare();
    await this.#compareWeights(sequence, isPrompt);
    return `append ${count}`;
  }

  /** Dense attention of one query over all tokens up to its position, masked to those held. */
  #attend(sequence: Sequence, rows: HostRows, row: number, position: number, output: Float32Array) {
    const { kvHeads, headDim } = this.#fixture.cache.layout;
    const heads = this.#heads;
    const ratio = heads / kvHeads;
    const held = new Set(this.#sequences.table(sequence.id).positions);
    const weights = new Map<number, Float64Array>();
    const seen = sequence.tokens.slice(0, position + 1);
    for (let head = 0; head < heads; head++) {
      const kvHead = Math.floor(head / ratio);
      const query = rows.offset + row * rows.rowStride + head * headDim;
      const component = (values: Float32Array, d: number): number =>
        at(values, kvHead * headDim + d);
      const logits = seen.map(({ keys }, token) => {
        if (!held.has(token)) return -Infinity;
        let sum = 0;
        for (let d = 0; d < headDim; d++) sum += at(rows.data, query + d) * component(keys, d);
        return sum / Math.sqrt(headDim);
      });
      const top = Math.max(...logits);
      const total = logits.reduce((sum, logit) => sum + Math.exp(logit - top), 0);
      const result = new Float64Array(headDim);
      seen.forEach(({ values }, token) => {
        const weight = Math.exp(at(logits, token) - top) / total;
        for (let d = 0; d < headDim; d++) result[d] = at(result, d) + weight * component(values, d);
        const received = weights.get(token) ?? new Float64Array(kvHeads);
        received[kvHead] = at(received, kvHead) + weight / ratio;
        weights.set(token, received);
      });
      output.set(result, (row * heads + head) * headDim);
    }
    return { position, weights };
  }

  async #fork(parent: Sequence): Promise<string> {
    const { sequence: id, copies } = this.#sequences.fork(parent.id);
    this.#fixture.copy(copies);
    const record = parent.record.fork();
    const { tokens, queries } = parent;
    this.#all.push({ id, record, tokens: [...tokens], queries: [...queries] });
    await this.#compare();
    return 'fork';
  }

  async #drop(sequence: Sequence, block: number): Promise<string> {
    const { blockSize } = this.#fixture.cache.layout;
    const { cachedTokenCount } = this.#sequences.table(sequence.id);
    const indices = Array.from({ length: cachedTokenCount }, (_, i) => i);
    sequence.record.keep(
      Uint32Array.from(indices.filter((i) => Math.floor(i / blockSize) !== block)),
    );
    this.#sequences.dropBlock(sequence.id, block);
    await this.#compare();
    return `drop block ${block}`;
  }

  async #compact(sequence: Sequence): Promise<string> {
    const { blockSize } = this.#fixture.cache.layout;
    const { cachedTokenCount: cached } = this.#sequences.table(sequence.id);
    // As many as keep the count congruent modulo the block size.
    const drops = blockSize * this.#random.integer(0, Math.floor((cached - 1) / blockSize));
    const kept = Array.from({ length: cached }, (_, i) => i);
    for (let i = 0; i < drops; i++) kept.splice(this.#random.integer(0, kept.length - 1), 1);
    const moves = this.#sequences.compact(sequence.id, kept);
    this.#fixture.move(Uint32Array.from(moves.from), Uint32Array.from(moves.to));
    sequence.record.keep(Uint32Array.from(kept));
    await this.#compare();
    return `compact to ${kept.length}`;
  }

  async #free(sequence: Sequence): Promise<string> {
    this.#sequences.free(sequence.id);
    sequence.record.dispose();
    this.#all.splice(this.#all.indexOf(sequence), 1);
    await this.#compare();
    return 'free';
  }

  /** Every sequence holds the K and V of its tokens, bit for bit. */
  async #compare(): Promise<void> {
    this.#sequences.check();
    for (const { id, tokens } of this.#all) {
      const table = this.#sequences.table(id);
      const slots = Array.from({ length: table.cachedTokenCount }, (_, i) => table.slotAt(i));
      const read = await this.#fixture.cache.readKv(LAYER, slots);
      const held = [...table.positions].map((position) => tokens[position]);
      const expected = (which: keyof Token): number[] =>
        held.flatMap((token) => [...(token?.[which] ?? [])]);
      compareArrays(read.keys, expected('keys'), { label: `keys of sequence ${id}` });
      compareArrays(read.values, expected('values'), { label: `values of sequence ${id}` });
    }
  }

  /** Where a decision falls, the record holds the weights of the last queries. */
  async #compareWeights(sequence: Sequence, isPromptEnd: boolean): Promise<void> {
    const { layers, kvHeads, blockSize } = this.#fixture.cache.layout;
    const table = this.#sequences.table(sequence.id);
    const { tokenCount, cachedTokenCount } = table;
    if (!isPromptEnd && tokenCount % blockSize !== 0) return;
    const actual = await sequence.record.read(tokenCount, cachedTokenCount);
    const last = sequence.queries.at(-1);
    // Earlier queries could not know where this prompt ends, unless a block fills there.
    const isForeseen = tokenCount % blockSize === 0 || this.#window === Infinity;
    const from = isForeseen ? 0 : (last?.promptStart ?? 0);
    const expected = new Float32Array(cachedTokenCount * layers * kvHeads);
    for (const { position, weights } of sequence.queries) {
      if (position < from || position < tokenCount - this.#window) continue;
      table.positions.forEach((token, index) => {
        const to = (index * layers + LAYER) * kvHeads;
        weights.get(token)?.forEach((weight, head) => {
          expected[to + head] = at(expected, to + head) + weight;
        });
      });
    }
    compareArrays(actual, expected, { absolute: 1e-4, epsilon: 1e-4, label: 'received attention' });
  }

  /** Frees all sequences. */
  dispose(): void {
    for (const { record } of this.#all) record.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
