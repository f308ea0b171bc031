/** Failures: what is left after each, and that going on gives the uninterrupted run's result. */
import { createGpu } from '@vramkit/adapter';
import {
  createTensor,
  openDevice,
  tracedResource,
  type MemoryEvent,
  type TraceSink,
  type VramDevice,
} from '@vramkit/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { roundCpu } from './adam/gradient.cpu.js';
import {
  createOptimizer,
  deepOptimizerStates,
  gpuOnly,
  spawnWorker,
  twinFlow,
  zeroOffload,
  type HostWorker,
  type OffloadedOptimizer,
  type OptimizerOptions,
  type SpawnWorker,
} from './index.js';
import { addGradients, readWeights, train, trainData } from './testing/train.js';

let gpu: GPU;
let device: VramDevice;
beforeAll(async () => {
  ({ gpu } = await createGpu());
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

const COUNT = 9 * 1024 + 77;
const LAYOUT = {
  parameterCount: COUNT,
  subgroupSize: 1024,
  parameterDType: 'bf16',
  flushDType: 'bf16',
  atomic: true,
} as const;
const PLAN = deepOptimizerStates(LAYOUT, { stride: 2, ratio: 0.8 });
const ADAM = { adam: { learningRate: 0.01, weightDecay: 0.1 } };
const DATA = trainData(COUNT, 3, 11);
const code = (name: string) => expect.objectContaining({ code: name });

/** Step 1, then step 2 fails in the way that `fail` sets up, then it is repeated, then step 3. */
async function failInSecondStep(
  options: OptimizerOptions,
  step: (optimizer: OffloadedOptimizer) => Promise<unknown>,
  expectedCode: string,
): Promise<void> {
  const whole = await train(device, PLAN, DATA, ADAM);
  const optimizer = await createOptimizer(device, PLAN, DATA, { ...ADAM, ...options });
  const [first = [], second = [], third = []] = DATA.gradients;
  await addGradients(device, optimizer, first);
  await optimizer.step();
  const before = await optimizer.readState();
  await addGradients(device, optimizer, second);
  await expect(step(optimizer)).rejects.toEqual(code(expectedCode));
  expect(await optimizer.readState()).toEqual(before);
  expect(await readWeights(optimizer)).toEqual(before.parameters.map((v) => roundCpu(v, 'bf16')));
  expect((await optimizer.step()).step).toBe(2);
  await addGradients(device, optimizer, third);
  await optimizer.step();
  expect(await optimizer.readState()).toEqual(whole.state);
  await optimizer.dispose();
}

describe('a failed step of an atomic plan', () => {
  it.each([0, 1, 5, 12])('is undone after an abort behind operation %i', async (operation) => {
    const controller = new AbortController();
    let spans = 0;
    const trace: TraceSink = (event) => {
      if (event.type === 'phase' && event.lane === undefined) return;
      spans += 1;
      if (armed && spans > operation) controller.abort();
    };
    let armed = false;
    await failInSecondStep(
      { trace },
      (optimizer) => {
        armed = true;
        spans = 0;
        return optimizer.step({ signal: controller.signal });
      },
      'aborted',
    );
  });

  it.each([0, 3])('is undone after a thread died in update %i of the host', async (update) => {
    let updates = -1;
    let armed = false;
    const spawn: SpawnWorker = (program) => {
      const worker = spawnWorker(program);
      const post = (message: unknown): void => {
        worker.post(message);
        const { job } = message as { job?: { kernel: string } };
        if (armed && job?.kernel === 'adam' && ++updates === update) void worker.terminate();
      };
      return { ...worker, post } satisfies HostWorker;
    };
    await failInSecondStep(
      { spawn, threads: 2 },
      (optimizer) => {
        armed = true;
        return optimizer.step();
      },
      'worker-lost',
    );
  });

  it('leaves the state of the last step after a lost device, to go on elsewhere', async () => {
    const plan = deepOptimizerStates(LAYOUT, { stride: 3 });
    const whole = await train(device, plan, DATA, ADAM);
    const lost = await openDevice({ gpu });
    let armed = false;
    const trace: TraceSink = (event) => {
      if (armed && event.type === 'transfer') lost.gpuDevice.destroy();
    };
    const optimizer = await createOptimizer(lost, plan, DATA, { ...ADAM, trace });
    const [first = [], second = [], third = []] = DATA.gradients;
    await addGradients(lost, optimizer, first);
    await optimizer.step();
    const before = await optimizer.readState();
    await addGradients(lost, optimizer, second);
    armed = true;
    await expect(optimizer.step()).rejects.toEqual(code('device-lost'));
    const state = await optimizer.readState();
    expect(state).toEqual(before);
    await optimizer.dispose();
    lost.dispose();
    const resumed = await train(device, plan, { ...state, gradients: [second, third] }, ADAM);
    expect(resumed.state).toEqual(whole.state);
  });
});

it('says that resident state is gone with a lost device', async () => {
  const lost = await openDevice({ gpu });
  const optimizer = await createOptimizer(lost, twinFlow(LAYOUT, { ratio: 0.5 }), DATA);
  lost.gpuDevice.destroy();
  await lost.lost;
  await expect(optimizer.readState()).rejects.toEqual(code('device-lost'));
  await optimizer.dispose();
  lost.dispose();
});

it('refuses to go on after a failed step without atomic, until a state is written', async () => {
  const plan = zeroOffload({ ...LAYOUT, atomic: false });
  const controller = new AbortController();
  const trace: TraceSink = (event) => {
    if (event.type === 'phase' && event.lane !== undefined) controller.abort();
  };
  const optimizer = await createOptimizer(device, plan, DATA, { ...ADAM, trace });
  await addGradients(device, optimizer, DATA.gradients[0] ?? []);
  const step = optimizer.step({ signal: controller.signal });
  await expect(step).rejects.toEqual(code('aborted'));
  await expect(optimizer.readState()).rejects.toEqual(code('invariant'));
  await optimizer.writeState(DATA);
  await addGradients(device, optimizer, DATA.gradients[0] ?? []);
  await optimizer.step();
  const whole = await train(device, plan, { ...DATA, gradients: DATA.gradients.slice(0, 1) }, ADAM);
  expect(await optimizer.readState()).toEqual(whole.state);
  await optimizer.dispose();
});

it('can be disposed in the middle of a step, which then fails', async () => {
  const { liveBytes } = device.memory.stats();
  const owner: { optimizer?: OffloadedOptimizer } = {};
  let disposed: Promise<void> | undefined;
  const spawn: SpawnWorker = (program) => {
    const worker = spawnWorker(program);
    const post = (message: unknown): void => {
      const { job } = message as { job?: { kernel: string } };
      if (job?.kernel === 'adam') disposed ??= owner.optimizer?.dispose();
      else worker.post(message);
    };
    return { ...worker, post } satisfies HostWorker;
  };
  const optimizer = await createOptimizer(device, PLAN, DATA, { ...ADAM, spawn });
  owner.optimizer = optimizer;
  await addGradients(device, optimizer, DATA.gradients[0] ?? []);
  await expect(optimizer.step()).rejects.toEqual(code('disposed'));
  await disposed;
  await expect(optimizer.step()).rejects.toEqual(code('disposed'));
  expect(device.memory.stats().liveBytes).toBe(liveBytes);
  await device.settle();
});

it('forgets all gradients where a flush failed, also when later ones did not', async () => {
  let adds = 0;
  const spawn: SpawnWorker = (program) => {
    const worker = spawnWorker(program);
    const post = (message: unknown): void => {
      const { job } = message as { job?: { kernel: string } };
      if (job?.kernel === 'add_bf16' && adds++ === 0) void worker.terminate();
      else worker.post(message);
    };
    return { ...worker, post } satisfies HostWorker;
  };
  const plan = zeroOffload(LAYOUT);
  const [first = []] = DATA.gradients;
  const whole = await train(device, plan, { ...DATA, gradients: [first] }, ADAM);
  const optimizer = await createOptimizer(device, plan, DATA, { ...ADAM, spawn });
  await addGradients(device, optimizer, first);
  await expect(optimizer.step()).rejects.toEqual(code('worker-lost'));
  await expect(optimizer.step()).rejects.toEqual(code('invalid-argument'));
  await addGradients(device, optimizer, first);
  await optimizer.step();
  expect(await optimizer.readState()).toEqual(whole.state);
  await optimizer.dispose();
});

describe('a gradient that is not finite', () => {
  const bad = [NaN, Infinity, -Infinity, 1e30];
  it.each(bad)('%d skips the step and changes nothing but the scale', async (value) => {
    for (const plan of [zeroOffload(LAYOUT), gpuOnly(LAYOUT), PLAN]) {
      const options = { ...ADAM, lossScale: { initial: 1024 } };
      const optimizer = await createOptimizer(device, plan, DATA, options);
      const [first = [], second = []] = DATA.gradients;
      await addGradients(device, optimizer, first);
      await optimizer.step();
      const before = await optimizer.readState();
      const weights = await readWeights(optimizer);
      const broken = second.map((gradient) => gradient.slice());
      if (broken[0] !== undefined) broken[0][COUNT - 1] = value;
      await addGradients(device, optimizer, broken);
      const result = await optimizer.step();
      expect({ skipped: result.skipped, step: result.step }).toEqual({ skipped: true, step: 1 });
      const after = await optimizer.readState();
      expect(after).toEqual({ ...before, lossScale: { scale: 512, goodSteps: 0 } });
      expect(await readWeights(optimizer)).toEqual(weights);
      await addGradients(device, optimizer, second);
      expect((await optimizer.step()).step).toBe(2);
      await optimizer.dispose();
    }
  });
});

it('scales a long gradient down to the norm that clipping allows', async () => {
  const options = { adam: { epsilon: 1, beta1: 0, beta2: 0, learningRate: 1 }, clipNorm: 0.25 };
  const one = { ...DATA, gradients: DATA.gradients.slice(0, 1) };
  const { state, results } = await train(device, PLAN, one, options);
  const norm = Math.hypot(...(DATA.gradients[0]?.[0] ?? []).map((v) => roundCpu(v, 'bf16')));
  expect(results[0]?.gradientNorm).toBeCloseTo(norm, 3);
  expect(Math.hypot(...state.firstMoment)).toBeCloseTo(0.25, 5);
});

describe('settings', () => {
  it.each<OptimizerOptions>([
    ...[NaN, 0, -1].map((clipNorm) => ({ clipNorm })),
    ...[NaN, 0, -5, Infinity].map((initial) => ({ lossScale: { initial } })),
    { lossScale: { least: 0 } },
    { lossScale: { growth: NaN } },
    { lossScale: { growthSteps: 0 } },
    { lossScale: { backoff: 0 } },
    { adam: { learningRate: Infinity } },
    ...[0, -1, 1.5, NaN].map((threads) => ({ threads })),
  ])('%j is refused before anything is taken', async (options) => {
    const { liveBytes } = device.memory.stats();
    const spawn: SpawnWorker = () => expect.unreachable('no thread is started');
    const made = createOptimizer(device, zeroOffload(LAYOUT), DATA, { spawn, ...options });
    await expect(made).rejects.toEqual(code('invalid-argument'));
    expect(device.memory.stats().liveBytes).toBe(liveBytes);
  });

  it.each([NaN, -1, Infinity])('of rate %d fail a step that changes nothing', async (bad) => {
    let rate = bad;
    const learningRate = (): number => rate;
    const plan = zeroOffload({ ...LAYOUT, atomic: false });
    const optimizer = await createOptimizer(device, plan, DATA, { learningRate });
    const before = await optimizer.readState();
    await addGradients(device, optimizer, DATA.gradients[0] ?? []);
    await expect(optimizer.step()).rejects.toEqual(code('invalid-argument'));
    expect(await optimizer.readState()).toEqual(before);
    rate = 0.01;
    expect((await optimizer.step()).step).toBe(1);
    await optimizer.dispose();
  });

  it('of a state that cannot be are refused, and the old state stays', async () => {
    const optimizer = await createOptimizer(device, zeroOffload(LAYOUT), DATA);
    const before = await optimizer.readState();
    const parameters = new Float32Array(COUNT);
    for (const bad of [{ step: -1 }, { lossScale: { scale: NaN, goodSteps: 0 } }]) {
      const written = optimizer.writeState({ parameters, ...bad });
      await expect(written).rejects.toEqual(code('invalid-argument'));
    }
    expect(await optimizer.readState()).toEqual(before);
    await optimizer.dispose();
  });
});

describe('memory', () => {
  const plans = [
    zeroOffload({ ...LAYOUT, atomic: false }),
    gpuOnly(LAYOUT),
    PLAN,
    deepOptimizerStates({ ...LAYOUT, parameterDType: 'f32', flushDType: 'f16' }, { stride: 1 }),
    twinFlow({ ...LAYOUT, subgroupSize: 4096, slots: 1 }, { ratio: 0.7 }),
  ];
  it.each(plans)(
    'of plan %# is what it says to the byte, and steps allocate none',
    async (plan) => {
      const own = await openDevice({ gpu });
      const events: MemoryEvent[] = [];
      const memory = tracedResource(
        own.memory,
        (event) => void ('liveBytes' in event && events.push(event)),
        { now: () => 0 },
      );
      const optimizer = await createOptimizer(own, plan, DATA, { memory });
      const [first = [], second = [], third = []] = DATA.gradients;
      await addGradients(own, optimizer, first);
      await optimizer.step();
      const { buffersCreated, pipelinesCreated } = own.counters;
      await addGradients(own, optimizer, second);
      await optimizer.step();
      // The test's own tensor for the gradient is the one buffer more.
      expect(own.counters.buffersCreated - buffersCreated).toBe(1);
      expect(own.counters.pipelinesCreated).toBe(pipelinesCreated);
      await addGradients(own, optimizer, third);
      const before = own.counters.buffersCreated;
      await optimizer.step();
      expect(own.counters.buffersCreated).toBe(before);
      const mapped = events.filter(
        ({ label, type }) => type === 'allocate' && /^mapped/.test(label),
      );
      const staging = mapped.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      const peak = Math.max(0, ...events.map(({ liveBytes }) => liveBytes));
      expect({
        deviceBytes: peak - staging,
        stagingBytes: staging,
        hostBytes: optimizer.hostBytes,
      }).toEqual(plan.footprint);
      await optimizer.dispose();
      expect(events.at(-1)?.liveBytes).toBe(0);
      memory.dispose();
      own.dispose();
    },
  );

  it('that is not there is an error with the shortfall, and nothing stays allocated', async () => {
    // What core takes for uniforms.
    const ownBytes = 256 * 1024;
    const needed = PLAN.footprint.deviceBytes + PLAN.footprint.stagingBytes;
    const small = await openDevice({ gpu, budgetBytes: ownBytes + needed - 4 });
    const live = small.memory.stats().liveBytes;
    await expect(createOptimizer(small, PLAN, DATA)).rejects.toEqual(code('out-of-memory'));
    expect(small.memory.stats().liveBytes).toBe(live);
    small.dispose();
  });
});

it('cuts arrays over a small binding limit', async () => {
  const limits = { maxStorageBufferBindingSize: 2 ** 18 };
  const small = await openDevice({ gpu, limits });
  const parameterCount = 70_001;
  const data = trainData(parameterCount, 2, 4);
  const layout = { ...LAYOUT, parameterCount, subgroupSize: parameterCount, atomic: false };
  const plans = [gpuOnly(layout), zeroOffload(layout), deepOptimizerStates(layout, { stride: 1 })];
  for (const plan of plans) {
    const { state } = await train(small, plan, data, ADAM);
    expect(state).toEqual((await train(device, plan, data, ADAM)).state);
  }
  small.dispose();
});

it('refuses a gradient of another type, whatever its size', async () => {
  await using optimizer = await createOptimizer(device, PLAN, DATA, ADAM);
  const layout = { dtype: 'f16', kind: 'gradients', label: 'half' } as const;
  using half = createTensor(device, { ...layout, shape: [4096] });
  await expect(optimizer.addGradient(0, half)).rejects.toThrow(/gradients of f32, got .* of f16/);
});
