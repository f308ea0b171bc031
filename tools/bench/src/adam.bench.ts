/**
 * Adam on the CPU and on the device, beside the loop one would write first and beside what the
 * memory allows.
 *
 * Bytes are counted as Adam moves them: 28 a parameter. A copy is counted as bytes read plus
 * written. The bound of one thread is `TypedArray.set` over arrays as large; of two, the same in
 * two threads at once, through the pool's own threads running the kernel that copies (add_f32 with
 * its mask off reads twice and writes once, 12 bytes an element).
 */
import { createGpu } from '@vramkit/adapter';
import { createTensor, openDevice } from '@vramkit/core';
import type { VramDevice } from '@vramkit/core';
import {
  ADAM_STEP_NAMES,
  adamKernel,
  adamStep,
  completeAdam,
  HostPool,
  quadWorkgroups,
} from '@vramkit/offload';
import type { AdamStep } from '@vramkit/offload';
import type { BenchOptions } from './command-line.js';
import { copyKernel, copyWorkgroups } from './copy-kernel.js';
import { gpuRate } from './gpu-rate.js';
import { measureInTurn } from './measure.js';
import type { Measure } from './measure.js';
import { toResult } from './report.js';
import type { BenchResult } from './report.js';

/** The question that it answers, with the goal. */
export const question =
  'How close is Adam to the memory? WASM: 5x a JS loop and 85 % of a copy; WGSL: 80 % of a copy.';

const BYTES = 28;
const STEP = adamStep(completeAdam({ weightDecay: 0 }), 3);

function jsAdam(state: readonly Float32Array[], count: number, step: AdamStep): void {
  const [p = state[0], m = p, v = p, g = p] = state;
  if (p === undefined || m === undefined || v === undefined || g === undefined) return;
  for (let i = 0; i < count; i++) {
    const gradient = (g[i] ?? 0) * step.gradientScale;
    const first = step.beta1 * (m[i] ?? 0) + step.rest1 * gradient;
    const second = step.beta2 * (v[i] ?? 0) + step.rest2 * gradient * gradient;
    m[i] = first;
    v[i] = second;
    p[i] =
      (p[i] ?? 0) * step.decay -
      (step.stepSize * first) / (Math.sqrt(second) * step.rootScale + step.epsilon);
  }
}

const gbps = (bytes: number, startMs: number): number =>
  bytes / (performance.now() - startMs) / 1e6;

async function onHost(count: number): Promise<BenchResult[]> {
  const pages = Math.ceil((16 * count + 1024) / 65_536);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  const at = [0, 1, 2, 3].map((index) => 1024 + 4 * count * index);
  const arrays = at.map((address) => new Float32Array(memory.buffer, address, count));
  arrays.forEach((array, index) => array.fill(0.01 * (index + 1)));
  const pools = [1, 2].map((threads) => new HostPool(memory, { threads }));
  const adam = (pool: HostPool | undefined): Measure => {
    return async () => {
      const start = performance.now();
      const addresses = [...at, ...at.slice(0, 3)];
      await pool?.run({
        kernel: 'adam',
        addresses,
        strides: addresses.map(() => 4),
        count,
        scalars: ADAM_STEP_NAMES.map((name) => STEP[name]),
      });
      return gbps(BYTES * count, start);
    };
  };
  const source = new Uint8Array(8 * count).fill(1);
  const target = new Uint8Array(8 * count);
  const copy: Measure = () => {
    const start = performance.now();
    target.set(source);
    return Promise.resolve(gbps(16 * count, start));
  };
  const loop: Measure = () => {
    const start = performance.now();
    jsAdam(arrays, count, STEP);
    return Promise.resolve(gbps(BYTES * count, start));
  };
  const add: Measure = async () => {
    const start = performance.now();
    const [x = 0, g = 0] = at;
    await pools[1]?.run({
      kernel: 'add_f32',
      addresses: [x, g],
      strides: [4, 4],
      count,
      scalars: [-1],
    });
    return gbps(12 * count, start);
  };
  const name = { suite: 'adam', metric: 'memory traffic', unit: 'GB/s', driver: 'none' } as const;
  const millions = `${(count / 2 ** 20).toFixed(0)}M parameters`;
  const one = await measureInTurn(
    { ours: adam(pools[0]), peers: { 'JS loop': loop, copy } },
    { runs: 9 },
  );
  const two = await measureInTurn(
    { ours: adam(pools[1]), peers: { 'two threads adding': add } },
    { runs: 9 },
  );
  for (const pool of pools) await pool.dispose();
  return [
    toResult({ ...name, case: `WASM, 1 thread, ${millions}`, better: 'higher' }, one),
    toResult({ ...name, case: `WASM, 2 threads, ${millions}`, better: 'higher' }, two),
  ];
}

async function onDevice(device: VramDevice, driver: string, count: number): Promise<BenchResult> {
  const array = (label: string) =>
    createTensor(device, { dtype: 'f32', shape: [count], kind: 'optimizer', label });
  const [gradient, master, first, second, weights] = ['g', 'p', 'm', 'v', 'w'].map(array);
  if (!gradient || !master || !first || !second || !weights) throw new Error('no arrays');
  for (const tensor of [gradient, master, first, second, weights]) {
    tensor.write(new Float32Array(count).fill(0.1));
  }
  const quads = count / 4;
  // The kernel also writes the model's parameters: 4 bytes more.
  const ours = await gpuRate(device, (BYTES + 4) * count, (batch) =>
    batch.dispatch(adamKernel, {
      params: { dtype: 'f32' },
      bindings: { gradient, master, first, second, weights },
      uniforms: { quads, ...STEP },
      workgroups: quadWorkgroups(quads),
    }),
  );
  const copy = await gpuRate(device, 8 * count, (batch) =>
    batch.dispatch(copyKernel, {
      params: {},
      bindings: { source: gradient, result: weights },
      uniforms: { quads },
      workgroups: copyWorkgroups(quads),
    }),
  );
  const measured = await measureInTurn({ ours, peers: { 'copy kernel': copy } }, { runs: 9 });
  for (const tensor of [gradient, master, first, second, weights]) tensor.dispose();
  return toResult(
    {
      suite: 'adam',
      case: `WGSL, ${(count / 2 ** 20).toFixed(0)}M parameters`,
      metric: 'memory traffic',
      unit: 'GB/s',
      driver,
      better: 'higher',
    },
    measured,
  );
}

/** Measures. */
export async function run({ quick, log }: BenchOptions): Promise<readonly BenchResult[]> {
  const results = await onHost((quick ? 4 : 16) * 2 ** 20);
  const { gpu, driver } = await createGpu();
  log(`driver: ${driver}`);
  const device = await openDevice({ gpu });
  results.push(await onDevice(device, driver, (quick ? 1 : 4) * 2 ** 20));
  device.dispose();
  return results;
}
