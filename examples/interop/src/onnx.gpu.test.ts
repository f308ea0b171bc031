/** ONNX Runtime Web on our Dawn device: decoding over a static KV cache. */
import { createGpu } from '@vramkit/adapter';
import { openDevice, type VramDevice } from '@vramkit/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { decodeByDefault, decodeStatically, tokenOf } from './decode.js';
import { decoderModel } from './onnx-model.js';
import { openOrt } from './onnx.js';
import type { Ort } from './ort.js';
import { whyNoRuntimes } from './runtimes.js';

const SHAPE = { layers: 2, heads: 2, headDim: 4 };
const STEPS = 24;
const reason = whyNoRuntimes();
if (reason !== undefined) process.stderr.write(`interop with ONNX Runtime skipped: ${reason}\n`);

/** The step as its definition, in double precision. */
function expectedResults(): number[][] {
  const { layers, heads, headDim } = SHAPE;
  const rows: number[][][] = Array.from({ length: layers }, () => []);
  return Array.from({ length: STEPS }, (_, step) => {
    let x = [...tokenOf(step, heads * headDim)];
    for (const seen of rows) {
      seen.push(x);
      x = x.map((own, i) => {
        const first = i - (i % headDim);
        const head = Array.from({ length: headDim }, (_unused, k) => first + k);
        const logits = seen.map((row) =>
          head.reduce((sum, k) => sum + (x[k] ?? 0) * (row[k] ?? 0), 0),
        );
        const top = Math.max(...logits);
        const weights = logits.map((logit) => Math.exp(logit - top));
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        const attended = seen.reduce((sum, row, t) => sum + (weights[t] ?? 0) * (row[i] ?? 0), 0);
        return own + attended / total;
      });
    }
    return x;
  });
}

describe.skipIf(reason !== undefined)('ONNX Runtime Web on our device', () => {
  let device: VramDevice;
  let ort: Ort;
  // Its promises are Dawn's, which do not keep a process alive.
  const alive = setInterval(() => undefined, 5);
  beforeAll(async () => {
    const { gpu } = await createGpu();
    device = await openDevice({ gpu });
    ort = await openOrt(device, gpu);
  });
  afterAll(() => {
    clearInterval(alive);
    device.dispose();
  });

  it('decodes the same with K and V in buffers of ours, and creates none on the way', async () => {
    const options = { ...SHAPE, steps: STEPS, model: decoderModel(SHAPE) };
    const usual = await decodeByDefault(ort, device, options);
    const fixed = await decodeStatically(ort, device, options);
    expectedResults().forEach((row, step) => {
      row.forEach((value, i) => {
        // 24 terms of f32, each below 8.
        expect(Math.abs((fixed.results[step]?.[i] ?? NaN) - value)).toBeLessThan(1e-4);
      });
    });
    expect(fixed.results).toEqual(usual.results);
    expect(fixed.buffersCreated).toEqual(new Array(STEPS).fill(0));
    for (const created of usual.buffersCreated) expect(created).toBeGreaterThan(0);
    await device.settle();
  });
});
