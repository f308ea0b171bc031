/** Packed models, dense and with experts, compute what their dequantized weights compute. */
import { createGpu } from '@vramkit/adapter';
import { openDevice, type VramDevice } from '@vramkit/core';
import { full, lru } from '@vramkit/eviction';
import {
  bytesSource,
  fileSink,
  matrixValues,
  packModel,
  planModel,
  readSafetensors,
  rtn,
  sourceTensors,
  sourceValues,
  type CodeBits,
  type SourceTensor,
} from '@vramkit/packer';
import { buildSafetensors } from '@vramkit/packer/testing';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { expertStats, type ExpertCaching } from './experts/expert-caching.js';
import { generate, score } from './generate.js';
import { loadModel } from './load-model.js';
import { openModelFile } from './model-file.js';
import { createSession } from './session.js';
import { writeSeededFolder } from './testing/seeded-dense.js';

const tinyMoe = new URL('../../../tools/models/tiny-moe/', import.meta.url).pathname;
const WIDTHS: readonly CodeBits[] = [2, 3, 4, 8];
const ids = Uint32Array.from({ length: 40 }, (_, i) => 97 + ((i * 7) % 26));

let device: VramDevice;
let work: string;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
  work = await mkdtemp(join(tmpdir(), 'vramkit-packed-'));
});
afterAll(async () => {
  device.dispose();
  await rm(work, { recursive: true });
});

async function tensorsOf(folder: string): Promise<SourceTensor[]> {
  const source = bytesSource(
    'in',
    new Uint8Array(await readFile(join(folder, 'model.safetensors'))),
  );
  return sourceTensors(source, (await readSafetensors(source)).tensors.values());
}

/** A packed copy of a model, factors of 2 and 4 bits compact, and one of its values in f32. */
async function packed(
  folder: string,
  name: string,
  widthOf: (name: string) => CodeBits | undefined,
) {
  const [small, plain] = [join(work, `${name}-packed`), join(work, `${name}-plain`)];
  for (const each of [small, plain]) {
    await mkdir(each);
    await copyFile(join(folder, 'config.json'), join(each, 'config.json'));
  }
  const tensors = await tensorsOf(folder);
  const plan = planModel(tensors, {
    plan: ({ name: tensor }) => {
      const bits = widthOf(tensor);
      const factors = bits === 2 || bits === 4 ? 'compact' : 'f16';
      return bits === undefined ? 'keep' : { bits, factors, quantizer: rtn() };
    },
  });
  const values = new Map<string, Float32Array>();
  for (const tensor of tensors) values.set(tensor.name, await sourceValues(tensor));
  const sink = await fileSink(join(small, 'model.safetensors'));
  await packModel(plan, sink, {
    onMatrix: (tensor, matrix) => void values.set(tensor, matrixValues(matrix)),
  });
  await sink.close();
  const dequantized = tensors.map(({ name: tensor, shape }) => {
    const bytes = new Uint8Array((values.get(tensor) ?? new Float32Array()).buffer);
    return { name: tensor, type: 'F32', shape, bytes };
  });
  await writeFile(join(plain, 'model.safetensors'), buildSafetensors(dequantized));
  return { small, plain };
}

async function run(folder: string, experts?: ExpertCaching) {
  const file = await openModelFile(folder);
  try {
    using model = await loadModel(device, file, experts === undefined ? {} : { experts });
    using session = createSession(device, model, { kvTokens: 256, kvDtype: 'f32' });
    const scored = session.create(full({ blockSize: 16 }));
    const losses = await score(session, scored, ids);
    const sequence = session.create(full({ blockSize: 16 }));
    await session.prefill(sequence, ids);
    const tokens: number[] = [];
    const options = { maxTokens: 8, stopIds: [] };
    for await (const id of generate(session, sequence, options)) tokens.push(id);
    return { losses, tokens, weightBytes: device.memory.stats().liveBytesByKind.weights, model };
  } finally {
    await file.close();
  }
}

/** Largest difference of two lists of losses. */
const apart = (a: Float32Array, b: Float32Array): number =>
  a.reduce((most, loss, i) => Math.max(most, Math.abs(loss - (b[i] ?? NaN))), 0);

describe('a packed model', () => {
  it('checklist 1, 26: dense, a width for each matrix, checked when it is loaded', async () => {
    await mkdir(join(work, 'dense'));
    const folder = await writeSeededFolder(join(work, 'dense'), 3, 11);
    // Query, key and value of one layer differ, and so do gate and up.
    const order = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'];
    const { small, plain } = await packed(folder, 'dense', (name) => {
      const part = order.findIndex((each) => name.includes(each));
      const layer = Number(/layers\.(\d+)/.exec(name)?.[1] ?? 0);
      return part < 0 ? undefined : WIDTHS[(part + layer) % 4];
    });
    const weights = join(small, 'model.safetensors');
    const bytes = await readFile(weights);
    const at = bytes.length - 1000;
    await writeFile(weights, bytes.fill((bytes[at] ?? 0) ^ 1, at, at + 1));
    await expect(run(small)).rejects.toMatchObject({
      code: 'corrupt-data',
      context: { tensor: 'model.layers.2.mlp.down_proj.weight' },
    });
    await writeFile(weights, bytes.fill((bytes[at] ?? 0) ^ 1, at, at + 1));
    const [ours, theirs, original] = [await run(small), await run(plain), await run(folder)];
    expect(apart(ours.losses, theirs.losses)).toBeLessThan(2e-3);
    expect(apart(ours.losses, original.losses)).toBeGreaterThan(1);
    expect(ours.tokens).toEqual(theirs.tokens);
    expect(ours.weightBytes).toBeLessThan(0.45 * original.weightBytes);
  });

  it('checklist 1: with experts of 2, 3, 4 and 8 bits, all there or under a budget', async () => {
    const { small, plain } = await packed(tinyMoe, 'experts', (name) => {
      const expert = /experts\.(\d+)\./.exec(name)?.[1];
      return expert === undefined ? undefined : WIDTHS[Number(expert) % 4];
    });
    const [ours, theirs] = [await run(small), await run(plain)];
    expect(apart(ours.losses, theirs.losses)).toBeLessThan(1e-3);
    expect(ours.tokens).toEqual(theirs.tokens);
    // One expert of each width a layer, of two.
    const budgetBytes = (4 * (2.5 + 4 + 4.5 + 9) * 3 * 128 * 256) / 8;
    const policy = () => lru<number>();
    for (const prefetch of [false, true]) {
      const cached = await run(small, { budgetBytes, policy, prefetch });
      expect(cached.tokens).toEqual(ours.tokens);
      expect(cached.losses).toEqual(ours.losses);
      expect(expertStats(cached.model)?.evictions).toBeGreaterThan(0);
      expect(cached.weightBytes).toBeLessThan(ours.weightBytes);
    }
  });
});
