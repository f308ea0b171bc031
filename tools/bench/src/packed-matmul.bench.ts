/**
 * Packed products by width, and a mixture-of-experts layer of mixed widths, beside the same at 4
 * bits and beside a tuned plain f32 product on the same driver; and how fast weights are packed.
 *
 * GFLOP/s counts two per multiply and add. Packing counts bytes of f32 input for each second of
 * processor time, so that a machine that does other things at the same time does not count.
 */
import { cpuUsage } from 'node:process';
import { createGpu } from '@vramkit/adapter';
import { createTensor, openDevice, Uploader, type Tensor, type VramDevice } from '@vramkit/core';
import {
  createExpertArena,
  createMatrix,
  hqq,
  matmul,
  optRtn,
  quantizeMatrix,
  rtn,
  type AffineMatrixFormat,
  type DeviceMatrix,
  type ExpertArena,
} from '@vramkit/packer';
import type { BenchOptions } from './command-line.js';
import { gpuRate } from './gpu-rate.js';
import { CaseResources } from './kernel-cases.js';
import { measureInTurn, type Measure } from './measure.js';
import { createOperands, recordProduct, tuneProduct } from './plain-matmul.js';
import { toResult, type BenchResult } from './report.js';

/** What it answers. */
export const question =
  'Are products of 2 and 3 bits, and mixed experts, not slower than those of 4 bits?';

const suite = 'packed-matmul';
const FORMATS = ['affine2', 'affine3', 'affine4', 'affine8', 'f32'] as const;

function activations(device: VramDevice, label: string, rows: number, columns: number): Tensor {
  const shape = [rows, columns];
  const tensor = createTensor(device, { dtype: 'f32', shape, kind: 'activations', label });
  tensor.write(Float32Array.from({ length: rows * columns }, (_, i) => ((i % 17) - 8) / 16));
  return tensor;
}

async function weights(
  device: VramDevice,
  format: (typeof FORMATS)[number],
  size: number,
): Promise<DeviceMatrix> {
  const matrix = createMatrix(device, { rows: size, columns: size, format, label: format });
  const { codeWordsPerRow, scaleWordsPerRow } = matrix.layout;
  using uploader = new Uploader(device, { method: 'write-buffer' });
  if (format === 'f32') {
    await matrix.upload(uploader, 0, { dense: new Float32Array(size * size).fill(0.01) });
  } else {
    // Codes of a pattern and scales of 2^-7: what the values are does not change the time.
    const codes = new Uint32Array(size * codeWordsPerRow).fill(0x76543210);
    const scales = new Uint32Array(size * scaleWordsPerRow).fill(0xa0002000);
    await matrix.upload(uploader, 0, { codes, scales });
  }
  return matrix;
}

async function products(
  device: VramDevice,
  driver: string,
  rows: number,
  size: number,
): Promise<BenchResult> {
  using resources = new CaseResources();
  const x = resources.own(activations(device, 'x', rows, size));
  const y = resources.own(activations(device, 'y', rows, size));
  const peers: Record<string, Measure> = {};
  for (const format of FORMATS) {
    const matrix = resources.own(await weights(device, format, size));
    peers[format] = await gpuRate(device, 2 * rows * size * size, (batch) =>
      matmul(batch, { x, xRows: rows, weights: matrix, y }),
    );
  }
  const shape = { rows, depth: size, outputs: size };
  const operands = createOperands(device, shape);
  for (const tensor of Object.values(operands)) resources.own(tensor);
  const variant = await tuneProduct(device, shape, operands);
  peers['plain f32'] = await gpuRate(device, 2 * rows * size * size, (batch) =>
    recordProduct(batch, variant, shape, operands),
  );
  const { affine4: ours, ...rest } = peers;
  if (ours === undefined) throw new RangeError('affine4 was not measured');
  const measured = await measureInTurn({ ours, peers: rest }, { runs: 9 });
  const name = `4 bits, M = ${rows}, K = N = ${size}, groups of 32`;
  return toResult(
    { suite, case: name, metric: 'product', unit: 'GFLOP/s', driver, better: 'higher' },
    measured,
  );
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

async function packing(quick: boolean): Promise<BenchResult[]> {
  const rows = quick ? 64 : 512;
  const columns = 2048;
  const values = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 12.9898));
  const results: BenchResult[] = [];
  for (const [quantizer, part] of [
    [rtn(), rows],
    [rtn({ convention: 'symmetric-full' }), rows],
    [hqq(), rows / 16],
    [optRtn(), rows / 16],
  ] as const) {
    const some = values.subarray(0, part * columns);
    const ours: Measure = async () => {
      const before = cpuUsage();
      quantizeMatrix(some, { name: 'w', rows: part, columns, bits: 4, quantizer });
      return some.byteLength / cpuUsage(before).user;
    };
    const name = { suite, case: `${quantizer.name} 4 bits on the CPU`, metric: 'packing' };
    const figure = { ...name, unit: 'MB/s', driver: 'none', better: 'higher' } as const;
    results.push(toResult(figure, await measureInTurn({ ours }, { runs: 7, warmUps: 3 })));
  }
  return results;
}

/** Measures everything. */
export async function run({ quick, log }: BenchOptions): Promise<readonly BenchResult[]> {
  const { gpu, adapter, driver } = await createGpu();
  using device = await openDevice({ gpu });
  log(`${adapter} (${driver})`);
  const size = quick ? 1024 : 2048;
  const results: BenchResult[] = await packing(quick);
  for (const rows of quick ? [1] : [1, 128]) {
    log(`measuring products of ${rows} rows`);
    results.push(await products(device, adapter, rows, size));
  }
  log('measuring a layer of mixed experts');
  results.push(await mixedLayer(device, adapter, 1024));
  return results;
}
