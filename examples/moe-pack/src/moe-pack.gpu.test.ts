/** A model packed with a width for each expert computes what its dequantized weights compute. */
import { mkdir, mkdtemp, readFile, rm, writeFile, copyFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createGpu } from '@vramkit/adapter';
import { openDevice, type VramDevice } from '@vramkit/core';
import { loadModel, openModelFile } from '@vramkit/example-runtime';
import { matrixValues, quantizeMatrix, rtn, sourceValues, type CodeBits } from '@vramkit/packer';
import { buildSafetensors } from '@vramkit/packer/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { calibrate } from './calibrate.js';
import { meanLoss } from './evaluate.js';
import { openMoeModel } from './moe-model.js';
import { packWith } from './pack-with.js';

const folder = fileURLToPath(new URL('../../../tools/models/tiny-moe/', import.meta.url));
interface Reference {
  readonly input: number[];
  readonly experts: number[][][];
}

let device: VramDevice;
let work: string;
beforeAll(async () => {
  const { gpu } = await createGpu();
  device = await openDevice({ gpu });
  work = await mkdtemp(join(tmpdir(), 'vramkit-moe-'));
});
afterAll(async () => {
  device.dispose();
  await rm(work, { recursive: true });
});

const WIDTHS: readonly CodeBits[] = [2, 3, 4, 8];

describe('a packed mixture of experts', () => {
  it('checklist 1: gives the loss of its dequantized weights, widths mixed', async () => {
    const model = await openMoeModel(folder);
    const widths = new Map(model.experts.map(({ id, expert }) => [id, WIDTHS[expert % 4] ?? 4]));
    const quantizer = rtn();
    const packed = await packWith(model, join(work, 'packed'), {
      widths,
      groupSize: 32,
      quantizer,
    });
    expect(packed.bitsPerWeight).toBe(4.25 + 1);
    const tensors = [];
    for (const tensor of model.tensors) {
      const { name, shape } = tensor;
      let values = await sourceValues(tensor);
      const bits = widths.get(model.unitOf.get(name) ?? '');
      if (bits !== undefined) {
        const [rows = 0, columns = 0] = shape;
        values = matrixValues(quantizeMatrix(values, { name, rows, columns, bits, quantizer }));
      }
      tensors.push({ name, type: 'F32', shape, bytes: new Uint8Array(values.buffer) });
    }
    const plain = join(work, 'plain');
    await mkdir(plain);
    await writeFile(join(plain, 'model.safetensors'), buildSafetensors(tensors));
    await copyFile(join(folder, 'config.json'), join(plain, 'config.json'));
    await model.close();
    const text = await readFile(join(folder, 'eval.txt'));
    const windows = [Uint32Array.from(text.subarray(9000, 9120))];
    const mixed = await meanLoss(device, packed.folder, windows);
    const expected = await meanLoss(device, plain, windows);
    expect(Math.abs(mixed - expected)).toBeLessThan(2e-3);
    expect(Math.abs(mixed - (await meanLoss(device, folder, windows)))).toBeGreaterThan(2e-3);
  });

  it('checklist 22: packs compact factors, by any number of threads the same', async () => {
    const model = await openMoeModel(folder);
    const widths = new Map(model.experts.slice(0, 6).map(({ id }, i) => [id, WIDTHS[i % 4] ?? 4]));
    const how = { widths, groupSize: 32, factors: 'compact', quantizer: rtn() } as const;
    const files = [];
    for (const workers of [1, 2]) {
      const packed = await packWith(model, join(work, `by-${workers}`), { ...how, workers });
      // Widths of 2, 3, 4, 8, 2 and 3 bits, and 16 bits for 32 weights.
      expect(packed.bitsPerWeight).toBeCloseTo(22 / 6 + 0.5, 10);
      files.push(await readFile(join(packed.folder, 'model.safetensors')));
    }
    await model.close();
    expect(files[1]?.equals(files[0] ?? Buffer.of())).toBe(true);
  });

  it('checklist 9: counts the tokens of each expert as PyTorch routes them', async () => {
    const text = await readFile(join(folder, 'reference.json'), 'utf8');
    const { input, experts } = JSON.parse(text) as Reference;
    const file = await openModelFile(folder);
    const model = await loadModel(device, file, { floats: 'f32' }).finally(() => file.close());
    const { counts, moments } = await calibrate(device, model, [Uint32Array.from(input)]);
    model.dispose();
    experts.forEach((layer, index) => {
      for (let expert = 0; expert < 8; expert++) {
        const expected = layer.flat().filter((id) => id === expert).length;
        expect(counts.get(`${index}.${expert}`)).toBe(expected);
      }
    });
    expect(moments.get('3.7')?.inner).toHaveLength(256 * 256);
  });
});
