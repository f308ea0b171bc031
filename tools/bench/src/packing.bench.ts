/**
 * How fast weights are packed: each quantizer on one core, and round to nearest on the device
 * beside the same on the host. Goal: 50 MB/s of f32 input for each core by round to nearest to 4
 * bits.
 *
 * Packing on the host counts bytes of f32 input for each second of processor time, so that a
 * machine that does other things at the same time does not count; the device is timed by the clock,
 * beside the host by the clock.
 */
import { cpuUsage } from 'node:process';
import { createGpu } from '@vramkit/adapter';
import { createTensor, openDevice, type VramDevice } from '@vramkit/core';
import { createMatrix, hqq, optRtn, packOnDevice, quantizeMatrix, rtn } from '@vramkit/packer';
import type { BenchOptions } from './command-line.js';
import { CaseResources } from './kernel-cases.js';
import { measureInTurn, type Measure } from './measure.js';
import { toResult, type BenchResult } from './report.js';

/** What it answers. */
export const question = 'How fast are weights packed, on the host and on the device?';

const suite = 'packing';

/** Packing on the host, by the processor's time. */
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
  return [...(await packing(quick)), await packingOnDevice(device, adapter)];
}
