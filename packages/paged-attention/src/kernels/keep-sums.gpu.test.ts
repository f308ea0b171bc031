/** Sums that stay equal the twin's: fewer tokens, more room, none. */
import { createGpu } from '@vramkit/adapter';
import { Batch, createTensor, openDevice, type VramDevice } from '@vramkit/core';
import { seededRandom } from '@vramkit/core/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { keepSums } from './keep-sums.cpu.js';
import { KEEP_LANES, keepSumsKernel } from './keep-sums.wgsl.js';

let device: VramDevice;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

it.each([
  { kept: [0, 2, 3, 30, 63], targetTokens: 64 },
  { kept: Array.from({ length: 64 }, (_, i) => i), targetTokens: 128 },
  { kept: [], targetTokens: 64 },
])('$kept.length tokens in room for $targetTokens', async ({ kept, targetTokens }) => {
  const shape = { layers: 3, sourceTokens: 64, targetTokens, width: 5 };
  const { layers, width } = shape;
  const values = seededRandom(kept.length).float32Array(layers * 64 * width);
  const make = (dtype: 'f32' | 'u32', size: number) =>
    createTensor(device, { dtype, shape: [size], kind: 'kv', label: 'sums' });
  using source = make('f32', values.length);
  using target = make('f32', layers * targetTokens * width);
  using list = make('u32', 64);
  source.write(values);
  target.write(new Float32Array(layers * targetTokens * width).fill(7));
  if (kept.length > 0)
    list.write(Uint32Array.from([...kept, ...new Array(64 - kept.length).fill(0)]));
  const batch = new Batch(device, 'keep');
  batch.dispatch(keepSumsKernel, {
    params: {},
    bindings: { kept: list, source, kept_sums: target },
    uniforms: { count: kept.length, ...shape },
    workgroups: Math.ceil((layers * targetTokens * width) / KEEP_LANES),
  });
  batch.submit();
  expect(await target.readFloats()).toEqual(keepSums(values, kept, shape));
});
