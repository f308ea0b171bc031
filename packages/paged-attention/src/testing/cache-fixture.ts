/**
 * Test fixture: one paged KV cache on the device and its twin on the host, driven by the same
 * calls.
 */
import {
  Batch,
  createTensor,
  openDevice,
  type BufferRange,
  type Tensor,
  type VramDevice,
} from '@vramkit/core';
import { compareArrays, type SeededRandom } from '@vramkit/core/testing';
import { copyBlocks } from '../kernels/copy-blocks.cpu.js';
import { decodeAttention } from '../kernels/decode-attention.cpu.js';
import { slotsOf } from '../kernels/attend.cpu.js';
import { at, createHostKv, layerOf, type HostKv } from '../kernels/host-kv.cpu.js';
import { moveSlots } from '../kernels/move-slots.cpu.js';
import { receiveAttention } from '../kernels/receive-attention.cpu.js';
import { prefillAttention } from '../kernels/prefill-attention.cpu.js';
import { writeKv, type HostRows } from '../kernels/write-kv.cpu.js';
import { keyElement, normElement, valueElement } from '../kv-layout.js';
import {
  createPagedKvCache,
  type AttentionRecord,
  type PagedKvCache,
  type PagedKvCacheOptions,
} from '../index.js';

/** Attention results may differ from the twin by this much: absolute + epsilon * |expected|. */
export const ATTENTION_TOLERANCE = { absolute: 2e-5, epsilon: 2e-5 };

/** Norms are sums in f32 of up to 256 squares, against the twin's f64. */
const NORM_TOLERANCE = { absolute: 1e-6, epsilon: 4e-6 };

/** A device, and one whose bindings are so small that caches of a few MiB have segments. */
export async function openDevices(gpu: GPU): Promise<{ device: VramDevice; small: VramDevice }> {
  const limits = { maxStorageBufferBindingSize: 1 << 20 };
  return { device: await openDevice({ gpu }), small: await openDevice({ gpu, limits }) };
}

/** `count` distinct block ids of 1 .. blockCount - 1 in random order. */
export function scatteredBlocks(random: SeededRandom, count: number, blockCount: number): number[] {
  const ids = Array.from({ length: blockCount - 1 }, (_, i) => i + 1);
  for (let i = ids.length - 1; i > 0; i--) {
    const j = random.integer(0, i);
    [ids[i], ids[j]] = [ids[j] ?? 0, ids[i] ?? 0];
  }
  return ids.slice(0, count);
}

/** All slots of a block table, in logical order. */
export function tableSlots(table: readonly number[], blockSize: number): number[] {
  return slotsOf(table, table.length * blockSize, blockSize);
}

/** A sequence of a decode: its blocks in logical order and its cached slots. */
export interface SequenceUnderTest {
  readonly table: readonly number[];
  readonly length: number;
}

/** The pair of caches. */
export class CacheFixture {
  readonly cache: PagedKvCache;
  readonly host: HostKv;
  readonly #device: VramDevice;
  readonly #random: SeededRandom;
  readonly #tensors: Tensor[] = [];

  constructor(device: VramDevice, random: SeededRandom, options: PagedKvCacheOptions) {
    this.#device = device;
    this.#random = random;
    this.cache = createPagedKvCache(device, options);
    this.host = createHostKv(this.cache.layout);
  }

  /** A tensor of these values; freed with the fixture. */
  tensor(values: Float32Array | Uint32Array): Tensor {
    const tensor = createTensor(this.#device, {
      dtype: values instanceof Float32Array ? 'f32' : 'u32',
      shape: [Math.max(1, values.length)],
      kind: 'activations',
      label: 'fixture',
    });
    this.#tensors.push(tensor);
    if (values.length > 0) tensor.write(values);
    return tensor;
  }

  /** Writes random K and V to `slots` in every layer, from one fused [tokens, q k v] buffer. */
  write(slots: readonly number[], scale = 1): void {
    const { layers, kvHeads, headDim } = this.cache.layout;
    const width = kvHeads * headDim;
    const rowStride = 3 * width + 8;
    const list = Uint32Array.from(slots);
    const slotRange = this.tensor(list);
    for (let layer = 0; layer < layers; layer++) {
      const data = this.#random.float32Array(slots.length * rowStride, scale);
      const range = this.tensor(data);
      const keys = { rowStride, offset: width };
      const values = { rowStride, offset: 2 * width + 4 };
      const batch = new Batch(this.#device, 'write');
      this.cache.writeKv(batch, {
        layer,
        keys: { ...keys, range },
        values: { ...values, range },
        slots: slotRange,
        tokens: slots.length,
      });
      batch.submit();
      writeKv(this.host, {
        layer,
        keys: { ...keys, data },
        values: { ...values, data },
        slots: list,
      });
    }
  }

  /** Compares K, V and norms of `slots` in every layer with the twin's: K and V bit for bit. */
  async compare(slots: readonly number[]): Promise<void> {
    const { layout } = this.host;
    const { layers, kvHeads, headDim } = layout;
    const pairs = slots.flatMap((slot) =>
      Array.from({ length: kvHeads }, (_, head) => ({ slot, head })),
    );
    const norms = await this.cache.readNorms(slots);
    const expectedNorms = (which: 0 | 1): number[] =>
      slots.flatMap((slot) =>
        Array.from({ length: layers * kvHeads }, (_, i) =>
          at(this.host.norms, normElement(layout, slot, 0, 0) + 2 * i + which),
        ),
      );
    const shape = [slots.length, layers, kvHeads];
    const norm = { ...NORM_TOLERANCE, shape };
    compareArrays(norms.keyNorm, expectedNorms(0), { ...norm, label: 'key norms' });
    compareArrays(norms.valueNorm, expectedNorms(1), { ...norm, label: 'value norms' });
    for (let layer = 0; layer < layers; layer++) {
      const data = layerOf(this.host, layer);
      const read = await this.cache.readKv(layer, slots);
      const expected = (element: typeof keyElement): number[] =>
        pairs.flatMap(({ slot, head }) =>
          Array.from({ length: headDim }, (_, d) => at(data, element(layout, slot, head, d))),
        );
      compareArrays(read.keys, expected(keyElement), { label: `keys of layer ${layer}` });
      compareArrays(read.values, expected(valueElement), { label: `values of layer ${layer}` });
    }
  }

  /** Copies blocks in both caches. */
  copy(copies: readonly { from: number; to: number }[]): void {
    const batch = new Batch(this.#device, 'copy');
    this.cache.copyBlocks(batch, copies);
    batch.submit();
    copyBlocks(this.host, copies);
  }

  /** Moves tokens in both caches. */
  move(from: Uint32Array, to: Uint32Array): void {
    const batch = new Batch(this.#device, 'move');
    const ranges = { from: this.tensor(from), to: this.tensor(to) };
    this.cache.moveSlots(batch, { ...ranges, count: from.length });
    batch.submit();
    moveSlots(this.host, from, to);
  }

  /** Random queries as parts of wider rows, and an output between guard values. */
  #rows(count: number, heads: number, scale: number) {
    const width = heads * this.cache.layout.headDim;
    const rowStride = width + 12;
    const data = this.#random.float32Array((count + 1) * rowStride, scale);
    const guard = new Float32Array((count + 1) * (width + 4)).fill(-77);
    return {
      host: { data, rowStride, offset: 4 },
      queries: { range: this.tensor(data), rowStride, offset: 4 },
      output: { range: this.tensor(guard), rowStride: width + 4, offset: 8 },
    };
  }

  /** Reads output rows and checks that nothing around them changed. */
  async #result(output: { range: BufferRange; rowStride: number; offset: number }, count: number) {
    const all = await this.#tensors.find((t) => t === output.range)?.readFloats();
    if (all === undefined) throw new Error('the output is not a tensor of the fixture');
    const width = output.rowStride - 4;
    const rows = new Float32Array(count * width);
    const isRow = new Uint8Array(all.length);
    for (let row = 0; row < count; row++) {
      const start = output.offset + row * output.rowStride;
      rows.set(all.subarray(start, start + width), row * width);
      isRow.fill(1, start, start + width);
    }
    if (all.some((value, i) => isRow[i] === 0 && value !== -77)) {
      throw new Error('the kernel wrote outside the output rows');
    }
    return rows;
  }

  /** Sums of `tokens` tokens and one more, which must not change. */
  #sums(tokens: number): { readonly host: Float32Array; readonly range: Tensor } {
    const host = this.#random.float32Array((tokens + 1) * this.cache.layout.kvHeads);
    return { host, range: this.tensor(host) };
  }

  /** Decode attention on the device; compares it with the twin and gives it. */
  async decode(
    sequences: readonly SequenceUnderTest[],
    options: {
      heads: number;
      layer?: number;
      scale?: number;
      queryScale?: number;
      /** Sequences whose received attention is added up, and compared. */
      received?: readonly number[];
      /** Record of the only sequence, prepared. */
      record?: AttentionRecord;
      /** Sees the queries. */
      onQueries?: (queries: HostRows) => void;
    },
  ): Promise<Float32Array> {
    const { heads, layer = 0, queryScale = 1 } = options;
    const { headDim, blockSize } = this.cache.layout;
    const sums = (options.received ?? []).map((sequence) => {
      const length = sequences[sequence]?.length ?? 0;
      return { ...this.#sums(length), sequence, length };
    });
    const tableStride = Math.max(1, ...sequences.map((s) => s.table.length)) + 1;
    const tables = new Uint32Array(Math.max(1, sequences.length) * tableStride);
    sequences.forEach((s, i) => tables.set(s.table, i * tableStride));
    const lengths = Uint32Array.from(sequences, (s) => s.length);
    const { host, queries, output } = this.#rows(sequences.length, heads, queryScale);
    options.onQueries?.(host);
    const recorded = options.record?.received(layer) ?? [];
    const received = [
      ...sums.map((each) => ({ ...each, sums: each.range })),
      ...recorded.map((each) => ({ ...each, sequence: 0, length: sequences[0]?.length ?? 0 })),
    ];
    const batch = new Batch(this.#device, 'decode');
    const call = { layer, heads, tableStride, sequences: sequences.length };
    this.cache.decodeAttention(batch, {
      ...call,
      queries,
      output,
      blockTables: this.tensor(tables),
      lengths: this.tensor(lengths),
      maxLength: Math.max(0, ...lengths),
      ...(received.length === 0 ? {} : { received }),
      ...(options.scale === undefined ? {} : { scale: options.scale }),
    });
    batch.submit();
    const scale = options.scale ?? 1 / Math.sqrt(headDim);
    const twin = { ...call, queries: host, blockTables: tables, lengths, scale };
    const expected = decodeAttention(this.host, twin);
    const actual = await this.#result(output, sequences.length);
    const shape = [sequences.length, heads, headDim];
    compareArrays(actual, expected, { ...ATTENTION_TOLERANCE, shape, label: 'decode' });
    for (const { sequence, length, host: before, range } of sums) {
      const row = { ...host, offset: host.offset + sequence * host.rowStride };
      const slots = slotsOf(sequences[sequence]?.table ?? [], length, blockSize);
      const one = { layer, queries: row, heads, slots, contextLength: length - 1 };
      receiveAttention(this.host, { ...one, firstQuery: 0, scale }, before);
      compareArrays(await range.readFloats(), before, {
        ...ATTENTION_TOLERANCE,
        label: 'received',
      });
    }
    return actual;
  }

  /** Prefill attention on the device; compares it with the twin and gives it. */
  async prefill(
    table: readonly number[],
    options: {
      heads: number;
      tokens: number;
      contextLength: number;
      layer?: number;
      /** First query of each sum of received attention, which are compared. */
      received?: readonly number[];
      /** First queries that are compared. Default: all. */
      compared?: number;
      /** Record of the sequence, prepared. */
      record?: AttentionRecord;
      /** Sees the queries. */
      onQueries?: (queries: HostRows) => void;
    },
  ): Promise<Float32Array> {
    const { heads, tokens, contextLength, layer = 0 } = options;
    const { headDim } = this.cache.layout;
    const blockTable = Uint32Array.from(table);
    const sums = (options.received ?? []).map((firstQuery) => ({
      ...this.#sums(contextLength + tokens),
      firstQuery,
    }));
    const { host, queries, output } = this.#rows(tokens, heads, 1);
    options.onQueries?.(host);
    const received = [
      ...sums.map((each) => ({ ...each, sums: each.range })),
      ...(options.record?.received(layer) ?? []),
    ];
    const batch = new Batch(this.#device, 'prefill');
    const call = { layer, heads, tokens, contextLength };
    this.cache.prefillAttention(batch, {
      ...call,
      queries,
      output,
      blockTable: this.tensor(blockTable),
      ...(received.length === 0 ? {} : { received }),
    });
    batch.submit();
    const scale = 1 / Math.sqrt(headDim);
    const expected = prefillAttention(this.host, { ...call, queries: host, blockTable, scale });
    const actual = await this.#result(output, tokens);
    const { compared = tokens } = options;
    const [got, wanted] = [actual, expected].map((all) =>
      all.subarray(0, compared * heads * headDim),
    );
    const shape = [compared, heads, headDim];
    compareArrays(got ?? [], wanted ?? [], { ...ATTENTION_TOLERANCE, shape, label: 'prefill' });
    const slots = slotsOf(table, contextLength + tokens, this.cache.layout.blockSize);
    for (const { host: before, range, firstQuery } of sums) {
      const part = { ...call, queries: host, slots, firstQuery, scale };
      receiveAttention(this.host, part, before);
      compareArrays(await range.readFloats(), before, {
        ...ATTENTION_TOLERANCE,
        label: 'received',
      });
    }
    return actual;
  }

  /** Frees everything. */
  dispose(): void {
    for (const tensor of this.#tensors.splice(0)) tensor.dispose();
    this.cache.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
