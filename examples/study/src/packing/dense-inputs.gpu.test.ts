// Layers that run one at a time over a residual leave what they leave in the whole model.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGpu } from '@vramkit/adapter';
import { Batch, openDevice } from '@vramkit/core';
import { full } from '@vramkit/eviction';
import { createSession } from '@vramkit/example-runtime';
import { writeSeededDense } from '@vramkit/example-runtime/testing';
import { activationMoments } from '@vramkit/packer';
import { expect, it } from 'vitest';
import { denseInputs } from './dense-inputs.js';
import { openReplaceable } from './replaceable-model.js';

const LAYERS = 3;
const windows = [Uint32Array.from({ length: 20 }, (_, i) => (i * 37) % 256), new Uint32Array(7)];

function expectClose(found: Float64Array, expected: Float64Array): void {
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const apart = found.reduce((most, value, i) => {
    return Math.max(most, Math.abs(value - (expected[i] ?? NaN)));
  }, 0);
  expect(apart).toBeLessThan(1e-5 * largest);
}

it('gives the moments of a run of all layers, from files the second time', async () => {
  const { gpu } = await createGpu();
  using device = await openDevice({ gpu });
  const folder = await mkdtemp(join(tmpdir(), 'vramkit-dense-'));
  using model = await openReplaceable(device, await writeSeededDense(folder, LAYERS, 5));
  using session = createSession(device, model.model, { kvTokens: 64, chunkTokens: 32 });
  const left: Record<'attention' | 'normed' | 'activation', number[]> = {
    ...{ attention: [], normed: [], activation: [] },
  };
  for (const window of windows) {
    const sequence = session.create(full({ blockSize: 16 }));
    const batch = new Batch(device, 'all layers');
    session.recordStep(batch, sequence, window);
    batch.submit();
    for (const name of ['attention', 'normed', 'activation'] as const) {
      const rows = session.forward.workspace[name].slice(0, window.length);
      left[name].push(...(await rows.readFloats()));
    }
    session.free(sequence);
  }
  const inputs = denseInputs(model, windows, folder);
  const momentsOf = async (part: string): Promise<Float64Array> => {
    const tensor = model.tensors.find(({ name }) => name === `layers.${LAYERS - 1}.${part}`);
    if (tensor === undefined) throw new Error(`no ${part}`);
    return inputs.momentsOf(tensor);
  };
  const readers = { attention: 'attentionOutput', normed: 'gate', activation: 'down' } as const;
  for (const name of ['attention', 'normed', 'activation'] as const) {
    const found = await momentsOf(readers[name]);
    const columns = Math.sqrt(found.length);
    expectClose(found, activationMoments(Float32Array.from(left[name]), columns));
  }
  const query = await momentsOf('query');
  const again = denseInputs(model, windows, folder);
  const [first] = model.tensors.filter(({ name }) => name === `layers.${LAYERS - 1}.query`);
  if (first === undefined) throw new Error('no query');
  // Weights that changed in between are not seen: the moments are those of the file's weights.
  await model.write(first, new Float32Array(first.values.length));
  expect(await again.momentsOf(first)).toEqual(query);
  await rm(folder, { recursive: true });
});
