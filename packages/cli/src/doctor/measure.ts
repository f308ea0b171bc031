/**
 * Measures a device in a few seconds: transfers, a matrix product, and what one dispatch costs.
 *
 * Each figure is the median of several runs after one that does not count. A run waits until the
 * device is done, so that a rate is of bytes that have arrived; enough work goes before each wait
 * to make the wait itself small. The matrices grow until one product takes long enough to time.
 */
import {
  Batch,
  createTensor,
  defineKernel,
  fail,
  Uploader,
  type Tensor,
  type UploadMethod,
  type VramDevice,
} from '@vramkit/core';
import { matmulCpu } from './matmul.cpu.js';
import { matmul, rowsPerInvocation, workgroupEdge } from './matmul.wgsl.js';

/** One measured figure. */
export interface Figure {
  readonly median: number;
  readonly min: number;
  readonly max: number;
  readonly unit: 'GB/s' | 'GFLOP/s' | 'us';
  /** Runs that count. */
  readonly runs: number;
}

/** What {@link measureDevice} finds. */
export interface Measurements {
  /** Host to device through `queue.writeBuffer`. */
  readonly uploadWriteBuffer: Figure;
  /** Host to device through a ring of mapped staging buffers. */
  readonly uploadMapped: Figure;
  /** Device to host, into a new array. */
  readonly download: Figure;
  /** `copyBufferToBuffer`, bytes counted once. */
  readonly copy: Figure;
  /** Plain f32 matrix product. */
  readonly matmul: Figure;
  /** Rows and columns of its matrices, elements. */
  readonly matmulSize: number;
  /** One more dispatch in a batch that is submitted anyway: recording and running. */
  readonly dispatch: Figure;
  /** One dispatch from submission to the end of the wait for it. */
  readonly completionWait: Figure;
}

const transferBytes = 32 * 1024 * 1024;
const transfersPerRun = 4;
const minDispatches = 256;
const maxDispatches = 65_536;
/** So many dispatches that they take less than this are measured again as four times as many. */
const shortDispatchesMs = 60;
const minRuns = 5;
const maxRuns = 11;
/** A figure stops at {@link minRuns} once it has taken this long. */
const figureMs = 300;
/** A product shorter than this is measured again at twice the size. */
const shortMatmulMs = 50;
const maxMatmulSize = 2048;
const checkedMatmulSize = 64;

const touch = defineKernel({
  name: 'doctor-touch',
  bindings: { data: { access: 'read-write', type: 'array<u32>' } },
  uniforms: {},
  source: (_params: Record<string, never>) => /* wgsl */ `
@compute @workgroup_size(1) fn main() { data[0] += 1u; }`,
});

/** Median, least and most of some values. */
export function summarize(values: readonly number[], unit: Figure['unit']): Figure {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (index: number): number => sorted[index] ?? Number.NaN;
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? at(middle) : (at(middle - 1) + at(middle)) / 2;
  return { median, min: at(0), max: at(sorted.length - 1), unit, runs: sorted.length };
}

async function timeMs(run: () => void | Promise<void>): Promise<number> {
  const start = performance.now();
  await run();
  return performance.now() - start;
}

/** Runs once unseen and then several times; `toValue` makes a figure's value of milliseconds. */
async function measure(
  unit: Figure['unit'],
  toValue: (ms: number) => number,
  run: () => Promise<void>,
): Promise<Figure> {
  await run();
  const values: number[] = [];
  const start = performance.now();
  while (
    values.length < minRuns ||
    (values.length < maxRuns && performance.now() - start < figureMs)
  ) {
    values.push(toValue(await timeMs(run)));
  }
  return summarize(values, unit);
}

function createF32(device: VramDevice, shape: readonly number[], label: string): Tensor {
  return createTensor(device, { dtype: 'f32', shape: [...shape], kind: 'activations', label });
}

async function measureTransfers(
  device: VramDevice,
): Promise<Pick<Measurements, 'uploadWriteBuffer' | 'uploadMapped' | 'download' | 'copy'>> {
  const sizeBytes = Math.min(transferBytes, device.limits.maxBufferSize);
  using from = createF32(device, [sizeBytes / 4], 'from');
  using to = createF32(device, [sizeBytes / 4], 'to');
  const data = new Float32Array(sizeBytes / 4).fill(1);
  const gbps = (count: number) => (ms: number) => (sizeBytes * count) / ms / 1e6;
  const upload = async (method: UploadMethod): Promise<Figure> => {
    using uploader = new Uploader(device, { method });
    return await measure('GB/s', gbps(transfersPerRun), async () => {
      for (let count = 0; count < transfersPerRun; count++) await uploader.upload(from, data);
      await device.settle();
    });
  };
  return {
    uploadWriteBuffer: await upload('write-buffer'),
    uploadMapped: await upload('mapped-ring'),
    download: await measure('GB/s', gbps(1), async () => {
      await device.readback.read(from);
    }),
    copy: await measure('GB/s', gbps(transfersPerRun), async () => {
      const batch = new Batch(device, 'doctor-copy');
      for (let count = 0; count < transfersPerRun; count++) batch.copy(from, to);
      batch.submit();
      await device.settle();
    }),
  };
}

/** Makes a function that multiplies the matrices once and waits. */
function multiply(device: VramDevice, a: Tensor, b: Tensor, c: Tensor, size: number) {
  return async (): Promise<void> => {
    const batch = new Batch(device, 'doctor-matmul');
    batch.dispatch(matmul, {
      params: {},
      bindings: { a, b, c },
      uniforms: { size },
      workgroups: [
        Math.ceil(size / 4 / workgroupEdge),
        Math.ceil(size / rowsPerInvocation / workgroupEdge),
        1,
      ],
    });
    batch.submit();
    await device.settle();
  };
}

/**
 * Multiplies two small matrices and compares with the host: a driver that computes wrong is worse
 * than none. Entries are multiples of 1/8 below 2, so every partial sum is exact in f32.
 * @throws VramError `validation` where an entry differs.
 */
export async function checkMatmul(device: VramDevice, size = checkedMatmulSize): Promise<void> {
  const fill = (factor: number) =>
    Float32Array.from({ length: size * size }, (_, i) => ((i * factor) % 31) / 8 - 1.875);
  const [hostA, hostB] = [fill(7), fill(13)];
  using a = createF32(device, [size, size], 'a');
  using b = createF32(device, [size, size], 'b');
  using c = createF32(device, [size, size], 'c');
  a.write(hostA);
  b.write(hostB);
  await multiply(device, a, b, c, size)();
  const expected = matmulCpu(hostA, hostB, size);
  const got = await c.readFloats();
  const wrong = expected.findIndex((value, index) => value !== got[index]);
  if (wrong < 0) return;
  fail(
    'validation',
    `the device computes wrong: entry ${wrong} of a ${size} x ${size} product is ${got[wrong]}, ` +
      `not ${expected[wrong]}; update the driver`,
    { entry: wrong, got: got[wrong], expected: expected[wrong] },
  );
}

async function measureMatmul(
  device: VramDevice,
): Promise<Pick<Measurements, 'matmul' | 'matmulSize'>> {
  const { maxStorageBufferBindingSize, maxBufferSize } = device.limits;
  const largestBytes = Math.min(maxStorageBufferBindingSize, maxBufferSize);
  for (let size = 256; ; size *= 2) {
    using a = createF32(device, [size, size], 'a');
    using b = createF32(device, [size, size], 'b');
    using c = createF32(device, [size, size], 'c');
    a.write(new Float32Array(size * size).fill(0.5));
    b.write(new Float32Array(size * size).fill(0.25));
    const run = multiply(device, a, b, c, size);
    await run();
    const isLast = size >= maxMatmulSize || 16 * (size * 2) ** 2 > 4 * largestBytes;
    if (!isLast && (await timeMs(run)) < shortMatmulMs) continue;
    const figure = await measure('GFLOP/s', (ms) => (2 * size ** 3) / ms / 1e6, run);
    return { matmul: figure, matmulSize: size };
  }
}

async function measureDispatch(
  device: VramDevice,
): Promise<Pick<Measurements, 'dispatch' | 'completionWait'>> {
  using data = createF32(device, [1], 'data');
  const run = async (count: number): Promise<void> => {
    const batch = new Batch(device, 'doctor-touch');
    for (let i = 0; i < count; i++) {
      batch.dispatch(touch, { params: {}, bindings: { data }, uniforms: {}, workgroups: 1 });
    }
    batch.submit();
    await device.settle();
  };
  const completionWait = await measure(
    'us',
    (ms) => ms * 1000,
    () => run(1),
  );
  // Enough dispatches that the wait, which on some drivers is a poll of a few ms, is small beside
  // them.
  let count = minDispatches;
  while (count < maxDispatches && (await timeMs(() => run(count))) < shortDispatchesMs) count *= 4;
  const each = (ms: number): number => Math.max(0, ms * 1000 - completionWait.median) / (count - 1);
  const dispatch = await measure('us', each, () => run(count));
  return { dispatch, completionWait };
}

/**
 * Measures everything; takes a few seconds and at most 100 MB of device memory.
 * @param onStep Called with what is measured next.
 * @throws VramError `validation` where the device computes wrong; `device-lost`; `out-of-memory`.
 */
export async function measureDevice(
  device: VramDevice,
  onStep: (what: string) => void = () => undefined,
): Promise<Measurements> {
  onStep('results');
  await checkMatmul(device);
  onStep('transfers');
  const transfers = await measureTransfers(device);
  onStep('matrix product');
  const product = await measureMatmul(device);
  onStep('dispatch');
  const dispatch = await measureDispatch(device);
  return { ...transfers, ...product, ...dispatch };
}
