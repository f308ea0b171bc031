// What the study judges is what a packed model computes: values written in place of the weights
// give the loss of the packed file.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGpu } from '@vramkit/adapter';
import { workspaceFolder } from '@vramkit/bench';
import { openDevice, type VramDevice } from '@vramkit/core';
import { meanLoss, openMoeModel, packWith } from '@vramkit/example-moe-pack';
import { outputErrorOf, rtn, type CodeBits } from '@vramkit/packer';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { expertInputs } from './expert-inputs.js';
import { openReplaceable } from './replaceable-model.js';
import { packed } from './stored.js';

const folder = join(workspaceFolder, 'tools/models/tiny-moe');
let device: VramDevice;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
});
afterAll(() => device.dispose());

it('gives the loss of the packed file, and the first one when all is put back', async () => {
  const text = await readFile(join(folder, 'eval.txt'));
  const windows = [Uint32Array.from(text.subarray(9000, 9090))];
  using model = await openReplaceable(device, folder);
  expect(model.tensors).toHaveLength(3 * 32);
  const [before = NaN] = await model.losses(windows);
  expect(Math.abs(before - (await meanLoss(device, folder, windows)))).toBeLessThan(2e-3);
  const width = { bits: 2, groupSize: 32 } as const;
  for (const tensor of model.tensors) {
    await model.write(tensor, packed(tensor, width, rtn()).values);
  }
  const [replaced = NaN] = await model.losses(windows);
  const work = await mkdtemp(join(tmpdir(), 'vramkit-packing-'));
  const moe = await openMoeModel(folder);
  const widths = new Map(moe.experts.map(({ id }): [string, CodeBits] => [id, width.bits]));
  const file = await packWith(moe, work, { widths, groupSize: width.groupSize, quantizer: rtn() });
  await moe.close();
  expect(Math.abs(replaced - (await meanLoss(device, file.folder, windows)))).toBeLessThan(2e-3);
  expect(Math.abs(replaced - before)).toBeGreaterThan(1e-2);
  await rm(work, { recursive: true });
  for (const tensor of model.tensors) await model.write(tensor, tensor.values);
  expect(await model.losses(windows)).toEqual([before]);
});

it('finds the moments of what each matrix multiplies', async () => {
  const text = await readFile(join(folder, 'eval.txt'));
  using model = await openReplaceable(device, folder);
  const inputs = expertInputs(model, [Uint32Array.from(text.subarray(0, 64))]);
  const [gate] = model.tensors;
  if (gate === undefined) throw new Error('no tensors');
  const moments = await inputs.momentsOf(gate);
  expect(moments).toHaveLength(gate.columns ** 2);
  // Normed inputs have a mean square near that of the norm's weight, and a change costs.
  const difference = Float64Array.from(gate.values, () => 1e-3);
  expect(outputErrorOf(difference, moments, gate.columns)).toBeGreaterThan(0);
  const counts = await inputs.counts();
  expect([...(counts ?? [])].reduce((sum, [, count]) => sum + count, 0)).toBe(4 * 64 * 2);
});
