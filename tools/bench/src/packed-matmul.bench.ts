/**
 * Packed products by width, and f32 ones, beside ONNX Runtime, ggml (llama.cpp) and TensorFlow.js
 * on the same driver and beside a tuned plain f32 product; and a mixture-of-experts layer of mixed
 * widths beside the same at 4 bits. How fast weights are packed: packing.bench.ts.
 *
 * Goals on lavapipe: 4 bits at least 4 times ONNX Runtime's WebGPU at one row and 1.3 times at 128;
 * f32 ahead of ONNX Runtime and TensorFlow.js at both; 2 and 3 bits not slower than 4 at one row;
 * mixed experts not slower than those of 4 bits.
 *
 * GFLOP/s counts two per multiply and add.
 */
import { createGpu } from '@vramkit/adapter';
import { createTensor, openDevice, Uploader, type Tensor, type VramDevice } from '@vramkit/core';
import {
  createExpertArena,
  createMatrix,
  matmul,
  quantizeMatrix,
  type AffineMatrixFormat,
  type DeviceMatrix,
  type ExpertArena,
  type FactorFormat,
} from '@vramkit/packer';
import type { BenchOptions } from './command-line.js';
import { gpuRate } from './gpu-rate.js';
import { CaseResources } from './kernel-cases.js';
import { measureInTurn, type Measure } from './measure.js';
import { installPeers } from './peers.js';
import { createOperands, recordProduct, tuneProduct } from './plain-matmul.js';
import { startProduct, type ProductPeer, type ProductSide } from './product-peer.js';
import { formatResults, toResult, type BenchResult } from './report.js';
import type { ProductFormat } from '../../peers/src/product-protocol.js';

/** What it answers. */
export const question = 'Packed products by width beside other runtimes on the same driver';

const suite = 'packed-matmul';
const PACKED: readonly BenchStorage[] = [
  { name: 'affine4', format: 'affine4' },
  { name: 'affine4 compact', format: 'affine4', factors: 'compact' },
  { name: 'affine2', format: 'affine2' },
  { name: 'affine3', format: 'affine3' },
  { name: 'affine8', format: 'affine8' },
];

/** How weights of a case are stored; groups of 32. */
interface BenchStorage {
  readonly name: string;
  readonly format: AffineMatrixFormat | 'f32';
  readonly factors?: FactorFormat;
}

function activations(device: VramDevice, label: string, rows: number, columns: number): Tensor {
  const shape = [rows, columns];
  const tensor = createTensor(device, { dtype: 'f32', shape, kind: 'activations', label });
  tensor.write(Float32Array.from({ length: rows * columns }, (_, i) => ((i % 17) - 8) / 16));
  return tensor;
}

async function weights(
  device: VramDevice,
  { name, format, factors }: BenchStorage,
  size: number,
): Promise<DeviceMatrix> {
  const shape = { rows: size, columns: size, format, factors };
  const matrix = createMatrix(device, { ...shape, label: name });
  const { codeWordsPerRow, scaleWordsPerRow } = matrix.layout;
  using uploader = new Uploader(device, { method: 'write-buffer' });
  if (format === 'f32') {
    await matrix.upload(uploader, 0, { dense: new Float32Array(size * size).fill(0.01) });
  } else {
    // Codes of a pattern and scales of 2^-7: what the values are does not change the time.
    const codes = new Uint32Array(size * codeWordsPerRow).fill(0x76543210);
    const pair = factors === 'compact' ? 0x40204020 : 0xa0002000;
    const scales = new Uint32Array(size * scaleWordsPerRow).fill(pair);
    await matrix.upload(uploader, 0, { codes, scales });
  }
  return matrix;
}

/** Rivals by the format of the weights; those on the CPU in one thread are the ceiling. */
const RIVALS: Readonly<Record<ProductFormat, readonly ProductSide[]>> = {
  '4-bit': [
    { name: 'ONNX Runtime WebGPU', runtime: 'onnxruntime', backend: 'gpu' },
    { name: 'ggml Vulkan q4_0', runtime: 'ggml', backend: 'gpu' },
    { name: 'ONNX Runtime CPU x1', runtime: 'onnxruntime', backend: 'cpu' },
    { name: 'ggml CPU x1 q4_0', runtime: 'ggml', backend: 'cpu' },
  ],
  f32: [
    { name: 'ONNX Runtime WebGPU', runtime: 'onnxruntime', backend: 'gpu' },
    { name: 'tfjs WebGPU', runtime: 'tensorflow', backend: 'gpu' },
    { name: 'ggml Vulkan f32', runtime: 'ggml', backend: 'gpu' },
    { name: 'ONNX Runtime CPU x1', runtime: 'onnxruntime', backend: 'cpu' },
    { name: 'ggml CPU x1 f32', runtime: 'ggml', backend: 'cpu' },
  ],
};

interface ProductRun extends BenchOptions {
  readonly device: VramDevice;
  /** The adapter's name. */
  readonly driver: string;
  readonly rows: number;
  readonly size: number;
  readonly format: ProductFormat;
}

/** Our own measures by name; the first is the subject. */
async function ourProducts(
  { device, rows, size, format }: ProductRun,
  resources: CaseResources,
): Promise<Record<string, Measure>> {
  const x = resources.own(activations(device, 'x', rows, size));
  const y = resources.own(activations(device, 'y', rows, size));
  const measures: Record<string, Measure> = {};
  const work = 2 * rows * size * size;
  const f32 = { name: 'f32', format: 'f32' } as const;
  for (const each of format === 'f32' ? [f32] : PACKED) {
    const matrix = resources.own(await weights(device, each, size));
    measures[each.name] = await gpuRate(device, work, (batch) =>
      matmul(batch, { x, xRows: rows, weights: matrix, y }),
    );
  }
  const shape = { rows, depth: size, outputs: size };
  const operands = createOperands(device, shape);
  for (const tensor of Object.values(operands)) resources.own(tensor);
  const variant = await tuneProduct(device, shape, operands);
  measures['plain f32'] = await gpuRate(device, work, (batch) =>
    recordProduct(batch, variant, shape, operands),
  );
  return measures;
}

async function products(options: ProductRun): Promise<BenchResult> {
  const { rows, size, format, driver, quick, log } = options;
  using resources = new CaseResources();
  const [ours, ...rest] = Object.entries(await ourProducts(options, resources));
  if (ours === undefined) throw new RangeError('nothing of ours');
  const peers = Object.fromEntries(rest);
  const started: ProductPeer[] = [];
  try {
    for (const side of quick ? [] : RIVALS[format]) {
      try {
        const { peer, measure } = await startProduct(side, { format, rows, size });
        started.push(peer);
        peers[side.name] = measure;
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        log(`${side.name} is left out of ${format}, M = ${rows}: ${reason}`);
      }
    }
    const measured = await measureInTurn({ ours: ours[1], peers }, { runs: 7 });
    for (const [name, reason] of Object.entries(measured.failures)) log(`${name}: ${reason}`);
    const name = `${format}, M = ${rows}, K = N = ${size}`;
    const result = toResult(
      { suite, case: name, metric: 'product', unit: 'GFLOP/s', driver, better: 'higher' },
      measured,
    );
    // A run that is stopped has the figures of the cases before.
    log(formatResults([result]));
    return result;
  } finally {
    for (const peer of started) await peer.dispose();
  }
}

const EXPERTS = 8;

async function arena(
  device: VramDevice,
  formats: readonly AffineMatrixFormat[],
  size: number,
): Promise<ExpertArena> {
  const slots = Math.ceil(EXPERTS / formats.length);
  const result = createExpertArena(device, {
    label: formats.join(' '),
    experts: EXPERTS,
    rowsPerExpert: size,
    columns: size,
    widths: formats.map((format) => ({ format, slots })),
  });
  using uploader = new Uploader(device, { method: 'write-buffer' });
  for (let expert = 0; expert < EXPERTS; expert++) {
    const width = expert % formats.length;
    const format = formats[width] ?? 'affine4';
    const { layout } = quantizeMatrix(new Float32Array(size), {
      name: 'row',
      rows: 1,
      columns: size,
      bits: Number(format.slice(-1)) as 2 | 3 | 4 | 8,
    });
    const rows = {
      codes: new Uint32Array(size * layout.codeWordsPerRow).fill(0x76543210),
      scales: new Uint32Array(size * layout.scaleWordsPerRow).fill(0xa0002000),
    };
    await result.tryStore(uploader, expert, { width, rows });
  }
  return result;
}

/** One token's eight experts: three of 2 bits, three of 3 and two of 4, beside all of 4. */
async function mixedLayer(device: VramDevice, driver: string, size: number): Promise<BenchResult> {
  using resources = new CaseResources();
  const x = resources.own(activations(device, 'x', 1, size));
  const y = resources.own(activations(device, 'y', EXPERTS, size));
  const layout = { dtype: 'u32', shape: [EXPERTS], kind: 'activations', label: 'ids' } as const;
  const expertIds = resources.own(createTensor(device, layout));
  expertIds.write(Uint32Array.from({ length: EXPERTS }, (_, i) => i));
  const rate = async (formats: readonly AffineMatrixFormat[]): Promise<Measure> => {
    const experts = resources.own(await arena(device, formats, size));
    return gpuRate(device, 2 * EXPERTS * size * size, (batch) =>
      experts.multiply(batch, { x, xRows: EXPERTS, xRowDivisor: EXPERTS, expertIds, y }),
    );
  };
  const ours = await rate(['affine2', 'affine3', 'affine4']);
  const peers = { 'all 4 bits': await rate(['affine4']) };
  const measured = await measureInTurn({ ours, peers }, { runs: 9 });
  const name = `8 experts of ${size} x ${size} in 2, 3 and 4 bits`;
  return toResult(
    { suite, case: name, metric: 'experts', unit: 'GFLOP/s', driver, better: 'higher' },
    measured,
  );
}

/** Measures everything. */
export async function run({ quick, log }: BenchOptions): Promise<readonly BenchResult[]> {
  const { gpu, adapter, driver } = await createGpu();
  using device = await openDevice({ gpu });
  log(`${adapter} (${driver})`);
  const size = quick ? 1024 : 2048;
  const results: BenchResult[] = [];
  if (!quick) await installPeers(log);
  for (const rows of quick ? [1] : [1, 128]) {
    for (const format of ['4-bit', 'f32'] as const) {
      log(`measuring products of ${rows} rows, ${format}`);
      const options = { device, driver: adapter, rows, size, format, quick, log };
      results.push(await products(options));
    }
  }
  log('measuring a layer of mixed experts');
  for (const each of quick ? [1024] : [1024, 2048]) {
    results.push(await mixedLayer(device, adapter, each));
  }
  return results;
}
