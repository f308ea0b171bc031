/** Merged partitions equal the twin's, in rows of any stride; empty ones weigh nothing. */
import { createGpu } from '@vramkit/adapter';
import { Batch, createTensor, openDevice, type VramDevice } from '@vramkit/core';
import { compareArrays, seededRandom } from '@vramkit/core/testing';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { mergePartials } from './merge-partials.cpu.js';
import { MERGE_LANES, mergePartialsKernel } from './merge-partials.wgsl.js';

let device: VramDevice;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

const headDim = 20;
const heads = 3;

it.each([
  { sequences: 1, partitions: 1 },
  { sequences: 5, partitions: 3 },
  { sequences: 9, partitions: 64 },
])('$sequences sequences of $partitions partitions', async ({ sequences, partitions }) => {
  const random = seededRandom(partitions);
  const rows = sequences * heads;
  const width = headDim + 4;
  const partials = random.float32Array(rows * partitions * width);
  for (let i = 0; i < rows * partitions; i++) {
    // The first row and every fourth partition are empty.
    const isEmpty = i < partitions || i % 4 === 3;
    if (isEmpty) partials.fill(0, i * width, i * width + headDim);
    partials[i * width + headDim] = isEmpty ? -3e38 : random.normal() * 40;
    partials[i * width + headDim + 1] = isEmpty ? 0 : 1 + random.uniform();
  }
  const outputStride = heads * headDim + 8;
  const outputOffset = 4;
  const tensor = (values: Float32Array) => {
    const size = { dtype: 'f32', shape: [values.length], kind: 'activations' } as const;
    const made = createTensor(device, { ...size, label: 'merge' });
    made.write(values);
    return made;
  };
  using input = tensor(partials);
  using output = tensor(new Float32Array(outputOffset + sequences * outputStride).fill(-7));
  const batch = new Batch(device, 'merge');
  batch.dispatch(mergePartialsKernel, {
    params: { headDim },
    bindings: { partials: input, output },
    uniforms: { rows, heads, partitions, outputOffset, outputStride },
    workgroups: Math.ceil((rows * headDim) / 4 / MERGE_LANES),
  });
  batch.submit();
  const merged = mergePartials(partials, { rows, partitions, headDim });
  expect([...merged.subarray(0, headDim)]).toEqual(new Array(headDim).fill(0));
  const expected = new Float32Array(outputOffset + sequences * outputStride).fill(-7);
  for (let sequence = 0; sequence < sequences; sequence++) {
    const row = merged.subarray(sequence * heads * headDim, (sequence + 1) * heads * headDim);
    expected.set(row, outputOffset + sequence * outputStride);
  }
  compareArrays(await output.readFloats(), expected, { absolute: 1e-5, epsilon: 1e-5 });
});
