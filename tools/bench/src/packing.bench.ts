/**
 * How fast weights are packed: each quantizer on one core, two threads beside one, and round to
 * nearest on the device beside the same on the host. Goals: 50 MB/s of f32 input for each core by
 * round to nearest to 4 bits; two threads on two free cores at least 1.7 times as fast as one by
 * quantizers that search.
 *
 * Packing on one core counts bytes of f32 input for each second of processor time, so that a
 * machine that does other things at the same time does not count; threads and the device are timed
 * by the clock, beside one thread of the host by the clock.
 */
import { cpuUsage } from 'node:process';
import { createGpu } from '@vramkit/adapter';
import { createTensor, openDevice, type VramDevice } from '@vramkit/core';
import {
  activationMoments,
  createMatrix,
  gptq,
  hqq,
  optRtn,
  packOnDevice,
  PackThreads,
  quantizeMatrix,
  rtn,
  type QuantizeOptions,
} from '@vramkit/packer';
import type { BenchOptions } from './command-line.js';
import { CaseResources } from './kernel-cases.js';
import { measureInTurn, type Measure } from './measure.js';
import { toResult, type BenchResult } from './report.js';

/** What it answers. */
export const question = 'How fast are weights packed, on the host and on the device?';

const suite = 'packing';

/** Packing on the host, by the processor's time. */
async function packing(quick: boolean): Promise<BenchResult[]> {
  const rows = quick ? 256 : 512;
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

/** Two threads beside one, both by the clock, on a matrix of the size that SmolLM2 has. */
async function packingOnThreads(quick: boolean): Promise<BenchResult[]> {
  const [rows, columns] = quick ? [96, 192] : [1536, 576];
  const values = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 12.9898));
  // Two that differ: threads keep what gptq needs of the moments that they had last.
  const moments = [0, 1].map((seed) =>
    activationMoments(
      Float32Array.from({ length: 256 * columns }, (_, i) => Math.sin(i * 78.233 + seed)),
      columns,
    ),
  );
  const threads = new PackThreads({ workers: 2 });
  const results: BenchResult[] = [];
  try {
    for (const quantizer of [rtn(), optRtn(), gptq()]) {
      const rate = (pack: (options: QuantizeOptions) => unknown): Measure => {
        let turn = 0;
        return async () => {
          const own = { name: 'w', rows, columns, bits: 4, groupSize: 64, quantizer } as const;
          const options = { ...own, moments: moments[turn++ % 2] };
          const start = performance.now();
          await pack(options);
          return values.byteLength / (performance.now() - start) / 1000;
        };
      };
      const ours = rate((options) => threads.quantize(values, options));
      const peers = { 'by one thread': rate((options) => quantizeMatrix(values, options)) };
      const name = `${quantizer.name} 4 bits by two threads`;
      const figure = {
        suite,
        case: name,
        metric: 'packing',
        unit: 'MB/s',
        driver: 'none',
      } as const;
      const measured = await measureInTurn({ ours, peers }, { runs: 7, warmUps: 2 });
      results.push(toResult({ ...figure, better: 'higher' }, measured));
    }
  } finally {
    await threads.dispose();
  }
  return results;
}

/** Packing on the device beside packing on the host, both by the clock. */
async function packingOnDevice(device: VramDevice, driver: string): Promise<BenchResult> {
  using resources = new CaseResources();
  const [rows, columns] = [512, 2048];
  const values = Float32Array.from({ length: rows * columns }, (_, i) => Math.sin(i * 12.9898));
  const tensor = resources.own(
    createTensor(device, { dtype: 'f32', shape: [rows, columns], kind: 'weights', label: 'w' }),
  );
  tensor.write(values);
  const layout = { rows, columns, format: 'affine4', label: 'packed' } as const;
  const matrix = resources.own(createMatrix(device, layout));
  const rate = async (pack: () => Promise<unknown>): Promise<number> => {
    const start = performance.now();
    await pack();
    return values.byteLength / (performance.now() - start) / 1000;
  };
  const options = { name: 'w', rows, columns, bits: 4, quantizer: rtn() } as const;
  const ours: Measure = () => rate(() => packOnDevice(tensor, matrix));
  const peers = { 'on the CPU': () => rate(async () => quantizeMatrix(values, options)) };
  const measured = await measureInTurn({ ours, peers }, { runs: 7, warmUps: 3 });
  const name = 'rtn-asymmetric 4 bits on the device';
  const figure = { suite, case: name, metric: 'packing', unit: 'MB/s', driver } as const;
  return toResult({ ...figure, better: 'higher' }, measured);
}

/** Measures everything. */
export async function run({ quick, log }: BenchOptions): Promise<readonly BenchResult[]> {
  const { gpu, adapter, driver } = await createGpu();
  using device = await openDevice({ gpu });
  log(`${adapter} (${driver})`);
  return [
    ...(await packing(quick)),
    ...(await packingOnThreads(quick)),
    await packingOnDevice(device, adapter),
  ];
}
