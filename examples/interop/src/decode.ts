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
  /** Tokens of zeros that are there before the first step. Default: 0. */
  readonly startTokens?: number;
  /** The model, of `decoderModel`. */
  readonly model: Uint8Array;
}

/** What a run gave and took. */
export interface DecodeReport {
  /** What the last layer gave in each step: `[steps][heads * headDim]`. */
  readonly results: readonly Float32Array[];
  /** Buffers that were created on the device during each step, by whomever. */
  readonly buffersCreated: readonly number[];
  /** Buffers that were created before the first step, while warming up. */
  readonly createdWarmingUp: number;
  /** Milliseconds of each step, its result on the host. */
  readonly ms: readonly number[];
}

/** The token of a step; the same in every run. */
export function tokenOf(step: number, size: number): Float32Array {
  return Float32Array.from({ length: size }, (_, i) => Math.sin(1 + step * 0.37 + i * 1.3));
}

/** A loop that decodes with one session. */
interface Loop {
  /** Makes the next step one behind `tokens` zeros. */
  readonly startAt: (tokens: number) => void;
  readonly step: (step: number) => Promise<Float32Array>;
}

/**
 * Tokens to warm up behind. ONNX Runtime compiles a shader when it first meets an operator, and its
 * pool keeps buffers by size class; the classes are at least a quarter apart.
 */
function warmUpLengths({ startTokens = 0, steps }: DecodeOptions): number[] {
  const lengths = [];
  const last = startTokens + steps - 1;
  for (let tokens = startTokens; tokens < last; tokens += 1 + (tokens >> 2)) lengths.push(tokens);
  return [...lengths, last];
}

/** Runs the steps and counts what each makes `device` create. */
async function measure(
  { gpuDevice }: VramDevice,
  options: DecodeOptions,
  { startAt, step: run }: Loop,
): Promise<DecodeReport> {
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
    for (const tokens of warmUpLengths(options)) {
      startAt(tokens);
      await run(0);
    }
    const createdWarmingUp = created;
    startAt(options.startTokens ?? 0);
    for (let step = 0; step < options.steps; step += 1) {
      created = 0;
      const begin = performance.now();
      results.push(await run(step));
      ms.push(performance.now() - begin);
      buffersCreated.push(created);
    }
    return { results, buffersCreated, createdWarmingUp, ms };
  } finally {
    gpuDevice.createBuffer = createBuffer;
  }
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
  const { layers, heads, headDim } = options;
  const session = await openSession(ort, device, options);
  const past = kvNames('past', layers);
  const present = kvNames('present', layers);
  let kv: OrtTensor[] = [];
  const replaceKv = (tensors: OrtTensor[]): void => {
    for (const tensor of kv) tensor.dispose();
    kv = tensors;
  };
  const report = await measure(device, options, {
    startAt: (tokens) => {
      const dims = [1, heads, tokens, headDim];
      const zeros = new Float32Array(heads * tokens * headDim);
      replaceKv(past.map(() => new ort.Tensor('float32', zeros, dims)));
    },
    step: async (step) => {
      const x = tokenOf(step, heads * headDim);
      const feeds: OrtValues = { 'x.0': new ort.Tensor('float32', x, [1, heads, 1, headDim]) };
      past.forEach((name, i) => Object.assign(feeds, { [name]: kv[i] }));
      const outputs = await session.run(feeds);
      replaceKv(present.flatMap((name) => outputs[name] ?? []));
      return outputs[`x.${layers}`]?.data ?? new Float32Array(0);
    },
  });
  replaceKv([]);
  await session.release();
  return report;
}

/** The loop over a static KV cache: whatever a step needs is there before it. */
export async function decodeStatically(
  ort: Ort,
  device: VramDevice,
  options: DecodeOptions,
): Promise<DecodeReport> {
  const { layers, heads, headDim, steps, startTokens = 0 } = options;
  const row = { dtype: 'f32', shape: [1, heads, 1, headDim], kind: 'activations' } as const;
  using x = createTensor(device, { ...row, label: 'token' });
  using y = createTensor(device, { ...row, label: 'result' });
  using cache = createStaticKvCache(device, {
    ...{ layers, kvHeads: heads, headDim, capacityTokens: startTokens + steps, dtype: 'f32' },
    update: 'alternate',
  });
  const session = await openSession(ort, device, options);
  const [token, result] = [lendToOrt(ort, x), lendToOrt(ort, y)];
  const report = await measure(device, options, {
    startAt: (tokens) => {
      cache.reset();
      if (tokens === 0) return;
      cache.advance(tokens);
      const zeros = new Float32Array(heads * tokens * headDim);
      for (let layer = 0; layer < layers; layer += 1) {
        const past = cache.past(layer);
        past.keys.write(zeros);
        past.values.write(zeros);
      }
    },
    step: async (step) => {
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
    },
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
  /** Buffers created before the first step. */
  readonly createdWarmingUp: number;
  /** Steps in which any was created. */
  readonly creatingSteps: number;
  /** The most that one step created. */
  readonly mostInAStep: number;
  /** Milliseconds of all steps. */
  readonly totalMs: number;
  /** The middle one of the last half of the steps, milliseconds. */
  readonly medianMs: number;
}

function figuresOf({ buffersCreated, createdWarmingUp, ms }: DecodeReport): DecodeFigures {
  const sum = (values: readonly number[]): number => values.reduce((total, one) => total + one, 0);
  const late = ms.slice(ms.length >> 1).sort((a, b) => a - b);
  return {
    buffersCreated: sum(buffersCreated),
    createdWarmingUp,
    creatingSteps: buffersCreated.filter((created) => created > 0).length,
    mostInAStep: Math.max(...buffersCreated),
    totalMs: sum(ms),
    medianMs: late[late.length >> 1] ?? 0,
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
