/**
 * Decoding with an ONNX session, as its users write it and with a static KV cache; runs in Node and
 * in a page.
 *
 * The usual loop takes `present` as new tensors in each step, feeds them as `past` in the next and
 * drops the old ones: microsoft/onnxruntime#32017 is what that costs. The static loop binds buffers
 * that were there before the first step: K, V, the token and the result.
 */
import { createTensor, type VramDevice } from '@vramkit/core';
import { createStaticKvCache } from '@vramkit/paged-attention';
import { lendToOrt, type Ort, type OrtSession, type OrtTensor, type OrtValues } from './ort.js';

/** What is decoded. */
export interface DecodeOptions {
  readonly layers: number;
  readonly heads: number;
  readonly headDim: number;
  readonly steps: number;
  /** The model, of `decoderModel`. */
  readonly model: Uint8Array;
}

/** What a run gave and took. */
export interface DecodeReport {
  /** What the last layer gave in each step: `[steps][heads * headDim]`. */
  readonly results: readonly Float32Array[];
  /** Buffers that were created on the device during each step, by whomever. */
  readonly buffersCreated: readonly number[];
  /** Milliseconds of each step, its result on the host. */
  readonly ms: readonly number[];
}

/** The token of a step; the same in every run. */
export function tokenOf(step: number, size: number): Float32Array {
  return Float32Array.from({ length: size }, (_, i) => Math.sin(1 + step * 0.37 + i * 1.3));
}

type Step = (step: number) => Promise<Float32Array>;

/** Runs the steps and counts what each makes `device` create. */
async function measure(device: VramDevice, steps: number, run: Step): Promise<DecodeReport> {
  const { gpuDevice } = device;
  const results: Float32Array[] = [];
  const buffersCreated: number[] = [];
  const ms: number[] = [];
  let created = 0;
  const createBuffer = gpuDevice.createBuffer.bind(gpuDevice);
  gpuDevice.createBuffer = (descriptor) => {
    created += 1;
    return createBuffer(descriptor);
  };
  try {
    for (let step = 0; step < steps; step += 1) {
      created = 0;
      const begin = performance.now();
      results.push(await run(step));
      ms.push(performance.now() - begin);
      buffersCreated.push(created);
    }
  } finally {
    gpuDevice.createBuffer = createBuffer;
  }
  return { results, buffersCreated, ms };
}

/** The names of K and V, `past` or `present`, in the order of the layers. */
function kvNames(when: 'past' | 'present', layers: number): string[] {
  return Array.from({ length: layers }, (_, layer) => layer).flatMap((layer) => [
    `${when}_key.${layer}`,
    `${when}_value.${layer}`,
  ]);
}

function openSession(
  ort: Ort,
  device: VramDevice,
  { model, layers }: DecodeOptions,
): Promise<OrtSession> {
  const present = kvNames('present', layers).map((name) => [name, 'gpu-buffer'] as const);
  return ort.InferenceSession.create(model, {
    executionProviders: [{ name: 'webgpu', device: device.gpuDevice }],
    preferredOutputLocation: { ...Object.fromEntries(present), [`x.${layers}`]: 'cpu' },
  });
}

/** The usual loop: ONNX Runtime makes `present`, and the caller drops `past`. */
export async function decodeByDefault(
  ort: Ort,
  device: VramDevice,
  options: DecodeOptions,
): Promise<DecodeReport> {
  const { layers, heads, headDim, steps } = options;
  const session = await openSession(ort, device, options);
  const past = kvNames('past', layers);
  const present = kvNames('present', layers);
  const empty = [1, heads, 0, headDim];
  let kv: OrtTensor[] = past.map(() => new ort.Tensor('float32', new Float32Array(0), empty));
  const report = await measure(device, steps, async (step) => {
    const x = tokenOf(step, heads * headDim);
    const feeds: OrtValues = { 'x.0': new ort.Tensor('float32', x, [1, heads, 1, headDim]) };
    past.forEach((name, i) => Object.assign(feeds, { [name]: kv[i] }));
    const outputs = await session.run(feeds);
    for (const tensor of kv) tensor.dispose();
    kv = present.flatMap((name) => outputs[name] ?? []);
    return outputs[`x.${layers}`]?.data ?? new Float32Array(0);
  });
  for (const tensor of kv) tensor.dispose();
  await session.release();
  return report;
}

/** The loop over a static KV cache: whatever a step needs is there before it. */
export async function decodeStatically(
  ort: Ort,
  device: VramDevice,
  options: DecodeOptions,
): Promise<DecodeReport> {
  const { layers, heads, headDim, steps } = options;
  const row = { dtype: 'f32', shape: [1, heads, 1, headDim], kind: 'activations' } as const;
  using x = createTensor(device, { ...row, label: 'token' });
  using y = createTensor(device, { ...row, label: 'result' });
  using cache = createStaticKvCache(device, {
    ...{ layers, kvHeads: heads, headDim, capacityTokens: steps, dtype: 'f32' },
    update: 'alternate',
  });
  const session = await openSession(ort, device, options);
  const [token, result] = [lendToOrt(ort, x), lendToOrt(ort, y)];
  const report = await measure(device, steps, async (step) => {
    x.write(tokenOf(step, heads * headDim));
    const feeds: OrtValues = { 'x.0': token };
    const fetches: OrtValues = { [`x.${layers}`]: result };
    for (let layer = 0; layer < layers; layer += 1) {
      const past = cache.past(layer);
      const present = cache.present(layer, 1);
      feeds[`past_key.${layer}`] = lendToOrt(ort, past.keys);
      feeds[`past_value.${layer}`] = lendToOrt(ort, past.values);
      fetches[`present_key.${layer}`] = lendToOrt(ort, present.keys);
      fetches[`present_value.${layer}`] = lendToOrt(ort, present.values);
    }
    await session.run(feeds, fetches);
    cache.advance(1);
    return y.readFloats();
  });
  await session.release();
  return report;
}

/** Both loops in figures. */
export interface DecodeComparison {
  readonly usual: DecodeFigures;
  readonly fixed: DecodeFigures;
  /** Whether every result of every step was the same, bit for bit. */
  readonly equal: boolean;
}

/** One loop in figures. */
export interface DecodeFigures {
  /** Buffers created over all steps. */
  readonly buffersCreated: number;
  /** Steps in which any was created. */
  readonly creatingSteps: number;
  /** Buffers created in the last half of the steps. */
  readonly createdInLastHalf: number;
  /** Milliseconds of all steps. */
  readonly totalMs: number;
  /** The middle one of the last half of the steps, milliseconds. */
  readonly medianMs: number;
}

function figuresOf({ buffersCreated, ms }: DecodeReport): DecodeFigures {
  const sum = (values: readonly number[]): number => values.reduce((total, one) => total + one, 0);
  const half = Math.floor(ms.length / 2);
  const late = ms.slice(half).sort((a, b) => a - b);
  return {
    buffersCreated: sum(buffersCreated),
    creatingSteps: buffersCreated.filter((created) => created > 0).length,
    createdInLastHalf: sum(buffersCreated.slice(half)),
    totalMs: sum(ms),
    medianMs: late[Math.floor(late.length / 2)] ?? 0,
  };
}

/** Runs both loops on one device, one after the other. */
export async function compareDecoding(
  ort: Ort,
  device: VramDevice,
  options: DecodeOptions,
): Promise<DecodeComparison> {
  const usual = await decodeByDefault(ort, device, options);
  const fixed = await decodeStatically(ort, device, options);
  const equal = usual.results.every((row, step) =>
    row.every((value, i) => value === fixed.results[step]?.[i]),
  );
  return { usual: figuresOf(usual), fixed: figuresOf(fixed), equal };
}
