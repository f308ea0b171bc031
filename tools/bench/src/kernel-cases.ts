/**
 * The kernels of a decode and a prefill step at SmolLM2's shapes, each beside what the same driver
 * does at best: a plain copy for kernels that are bound by memory, a tuned plain product for those
 * that are bound by arithmetic.
 *
 * GB/s counts bytes read and bytes written, of what the operation is about; so a copy of n bytes is
 * 2n, and an index table counts nothing. GFLOP/s counts two per multiply and add, and no more than
 * the result needs: masked products count nothing.
 */
import { createTensor, defineKernel } from '@vramkit/core';
import type { Batch, Tensor, VramDevice } from '@vramkit/core';
import { createMatrix, matmul } from '@vramkit/packer';
import { createPagedKvCache } from '@vramkit/paged-attention';
import { gpuRate } from './gpu-rate.js';
import type { Measure } from './measure.js';
import { createOperands, recordProduct, tuneProduct } from './plain-matmul.js';
import type { ProductShape } from './plain-matmul.js';

/** A kernel with its rivals, ready to be measured. */
export interface KernelCase {
  /** The operation with its sizes. */
  readonly name: string;
  /** What is counted. */
  readonly unit: 'GB/s' | 'GFLOP/s';
  /** Our kernel. */
  readonly ours: Measure;
  /** The driver's own best, by name. */
  readonly peers: Readonly<Record<string, Measure>>;
}

const headDim = 64;
const heads = 9;
const kvHeads = 3;
const hidden = 576;
const copyWorkgroup = 64;
const vectorsEach = 8;

const copyKernel = defineKernel({
  name: 'bench-copy',
  bindings: {
    input: { access: 'read', type: 'array<vec4<f32>>' },
    result: { access: 'read-write', type: 'array<vec4<f32>>' },
  },
  uniforms: { count: 'u32' },
  source: (_params: Record<string, never>) => /* wgsl */ `
@compute @workgroup_size(${copyWorkgroup})
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
  let invocations = groups.x * ${copyWorkgroup}u;
  for (var step = 0u; step < ${vectorsEach}u; step++) {
    let index = id.x + step * invocations;
    if (index < uniforms.count) { result[index] = input[index]; }
  }
}`,
});

/** Everything that a case allocates, freed at once. */
export class CaseResources {
  readonly #owned: { dispose(): void }[] = [];

  /** Takes over `resource` and hands it back. */
  own<T extends { dispose(): void }>(resource: T): T {
    this.#owned.push(resource);
    return resource;
  }

  /** Frees everything, the last first. Idempotent. */
  dispose(): void {
    for (const each of this.#owned.splice(0).reverse()) each.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function f32(device: VramDevice, label: string, shape: readonly number[]): Tensor {
  return createTensor(device, { dtype: 'f32', shape, kind: 'activations', label });
}

function filled(device: VramDevice, label: string, shape: readonly number[]): Tensor {
  const tensor = f32(device, label, shape);
  const count = shape.reduce((product, each) => product * each, 1);
  tensor.write(Float32Array.from({ length: count }, (_, index) => ((index % 17) - 8) / 16));
  return tensor;
}

/** Plain copies of a buffer that no cache holds: by a kernel and by the driver's own command. */
export async function plainCopies(
  device: VramDevice,
  resources: CaseResources,
): Promise<Record<string, Measure>> {
  const bytes = Math.min(32 * 1024 * 1024, device.limits.maxStorageBufferBindingSize);
  const from = resources.own(filled(device, 'copy from', [bytes / 4]));
  const to = resources.own(f32(device, 'copy to', [bytes / 4]));
  const count = bytes / 16;
  const kernel = (batch: Batch): void =>
    batch.dispatch(copyKernel, {
      params: {},
      bindings: { input: from, result: to },
      uniforms: { count },
      workgroups: [Math.ceil(count / copyWorkgroup / vectorsEach), 1, 1],
    });
  return {
    'copy kernel': await gpuRate(device, 2 * bytes, kernel),
    copyBufferToBuffer: await gpuRate(device, 2 * bytes, (batch) => batch.copy(from, to)),
  };
}

async function plainProduct(
  device: VramDevice,
  resources: CaseResources,
  shape: ProductShape,
): Promise<Measure> {
  const operands = createOperands(device, shape);
  for (const tensor of Object.values(operands)) resources.own(tensor);
  const variant = await tuneProduct(device, shape, operands);
  const operations = 2 * shape.rows * shape.depth * shape.outputs;
  return gpuRate(device, operations, (batch) => recordProduct(batch, variant, shape, operands));
}

/** A product with 4-bit weights: by arithmetic, and for a single row by memory as well. */
export async function productCases(
  device: VramDevice,
  resources: CaseResources,
  copies: Readonly<Record<string, Measure>>,
  shape: ProductShape,
): Promise<KernelCase[]> {
  const { rows, depth, outputs } = shape;
  const size = { rows: outputs, columns: depth, format: 'affine4', groupSize: 32 } as const;
  const weights = resources.own(createMatrix(device, { ...size, label: 'bench weights' }));
  const x = resources.own(filled(device, 'bench x', [rows, depth]));
  const y = resources.own(f32(device, 'bench y', [rows, outputs]));
  const record = (batch: Batch): void => matmul(batch, { x, xRows: rows, weights, y });
  const name = `4-bit matmul ${rows} x ${depth} x ${outputs}`;
  const plain = await plainProduct(device, resources, shape);
  const operations = 2 * rows * depth * outputs;
  const byArithmetic: KernelCase = {
    name,
    unit: 'GFLOP/s',
    ours: await gpuRate(device, operations, record),
    peers: { 'plain f32 matmul': plain },
  };
  if (rows > 1) return [byArithmetic];
  const { codeWordsPerRow, scaleWordsPerRow } = weights.layout;
  const bytes = 4 * (outputs * (codeWordsPerRow + scaleWordsPerRow) + depth + outputs);
  const ours = await gpuRate(device, bytes, record);
  return [byArithmetic, { name, unit: 'GB/s', ours, peers: copies }];
}

function indices(device: VramDevice, label: string, values: Uint32Array): Tensor {
  const shape = [values.length];
  const tensor = createTensor(device, { dtype: 'u32', shape, kind: 'staging', label });
  tensor.write(values);
  return tensor;
}

/** A cache of one layer that one sequence fills, and what its kernels read and write. */
function attentionOperands(device: VramDevice, resources: CaseResources, sizes: AttentionSizes) {
  const { tokens, chunk } = sizes;
  const blockSize = 16;
  const blockCount = tokens / blockSize;
  const options = { layers: 1, kvHeads, headDim, blockCount, blockSize, dtype: 'f16' } as const;
  const cache = resources.own(createPagedKvCache(device, options));
  const rows = (label: string, count: number, rowStride: number) => ({
    range: resources.own(filled(device, label, [count, rowStride])),
    rowStride,
    offset: 0,
  });
  const counting = (label: string, count: number): Tensor =>
    resources.own(
      indices(
        device,
        label,
        Uint32Array.from({ length: count }, (_, i) => i),
      ),
    );
  return {
    cache,
    blockCount,
    keys: rows('keys', tokens, kvHeads * headDim),
    values: rows('values', tokens, kvHeads * headDim),
    queries: rows('queries', chunk, heads * headDim),
    output: rows('output', chunk, heads * headDim),
    slots: counting('slots', tokens),
    table: counting('table', blockCount),
    lengths: resources.own(indices(device, 'lengths', Uint32Array.of(tokens))),
  };
}

/** Sizes of {@link attentionCases}. */
export interface AttentionSizes {
  /** Tokens in the cache; a multiple of 16. */
  readonly tokens: number;
  /** Query tokens of the prefill, the last ones of the cache. */
  readonly chunk: number;
}

/** Writing K and V, decode attention and prefill attention. */
export async function attentionCases(
  device: VramDevice,
  resources: CaseResources,
  copies: Readonly<Record<string, Measure>>,
  sizes: AttentionSizes,
): Promise<KernelCase[]> {
  const { tokens, chunk } = sizes;
  const { cache, blockCount, table, ...rest } = attentionOperands(device, resources, sizes);
  const { keys, values, slots, queries, output, lengths } = rest;
  const contextLength = tokens - chunk;
  const common = { layer: 0, queries, heads, output } as const;
  const tables = { blockTables: table, tableStride: blockCount, lengths, sequences: 1 };
  const write = (batch: Batch): void =>
    cache.writeKv(batch, { layer: 0, keys, values, slots, tokens });
  const decode = (batch: Batch): void =>
    cache.decodeAttention(batch, { ...common, ...tables, maxLength: tokens });
  const prefill = (batch: Batch): void =>
    cache.prefillAttention(batch, { ...common, blockTable: table, tokens: chunk, contextLength });
  const width = heads * headDim;
  const kvElements = tokens * 2 * kvHeads * headDim;
  // f32 rows in, f16 out.
  const writeRate = await gpuRate(device, kvElements * (4 + 2), write);
  const decodeRate = await gpuRate(device, kvElements * 2 + 2 * width * 4, decode);
  // Query i sees contextLength + i + 1 keys; a product with K and one with V.
  const pairs = chunk * contextLength + (chunk * (chunk + 1)) / 2;
  const prefillRate = await gpuRate(device, 4 * pairs * width, prefill);
  const shape: ProductShape = { rows: chunk, depth: hidden, outputs: 1536 };
  const plain = await plainProduct(device, resources, shape);
  const writeName = `write K and V of ${tokens} tokens`;
  const decodeName = `decode attention over ${tokens} tokens`;
  const prefillName = `prefill attention of ${chunk} after ${contextLength} tokens`;
  const peers = { 'plain f32 matmul': plain };
  return [
    { name: writeName, unit: 'GB/s', ours: writeRate, peers: copies },
    { name: decodeName, unit: 'GB/s', ours: decodeRate, peers: copies },
    { name: prefillName, unit: 'GFLOP/s', ours: prefillRate, peers },
  ];
}
