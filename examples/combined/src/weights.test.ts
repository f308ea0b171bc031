/** The published model survives the way through the optimizer's array, bit for bit. */
import { fileURLToPath } from 'node:url';
import { openMoeModel } from '@vramkit/example-moe-pack';
import { expect, it } from 'vitest';
import { checkpointTensors, flatParameters, PARAMETER_COUNT } from './weights.js';

const folder = fileURLToPath(new URL('../../../tools/models/tiny-moe/', import.meta.url));

it('turns tiny-moe into parameters and back', async () => {
  const model = await openMoeModel(folder);
  const parameters = await flatParameters(model.tensors);
  expect(parameters).toHaveLength(PARAMETER_COUNT);
  const tensors = checkpointTensors(parameters);
  expect(tensors).toHaveLength(model.tensors.length);
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  for (const { name, type, shape, readBytes } of model.tensors) {
    const tensor = byName.get(name);
    expect(tensor).toMatchObject({ dtype: type, shape: [...shape] });
    expect(Buffer.compare(tensor?.bytes ?? new Uint8Array(), await readBytes())).toBe(0);
  }
  await expect(flatParameters(model.tensors.slice(1))).rejects.toMatchObject({ code: 'not-found' });
  await model.close();
});
