/**
 * Every kernel of the runtime against its CPU twin. Tolerance: |actual - expected| <= 1e-5 + 1e-5 x
 * magnitude, unless a test says otherwise; ids are exact.
 */
import { createGpu } from '@vramkit/adapter';
import {
  Batch,
  createTensor,
  openDevice,
  type DType,
  type Tensor,
  type VramDevice,
} from '@vramkit/core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { argmax } from './argmax.cpu.js';
import { argmaxKernel } from './argmax.wgsl.js';
import { combineExperts } from './combine-experts.cpu.js';
import { combineExpertsKernel } from './combine-experts.wgsl.js';
import { rmsNorm } from './rms-norm.cpu.js';
import { rmsNormKernel } from './rms-norm.wgsl.js';
import { rope, writeRotations } from './rope.cpu.js';
import { ropeKernel } from './rope.wgsl.js';
import { routeExperts } from './route-experts.cpu.js';
import { routeExpertsKernel } from './route-experts.wgsl.js';
import { siluMul } from './silu-mul.cpu.js';
import { siluMulKernel } from './silu-mul.wgsl.js';
import { tokenLoss } from './token-loss.cpu.js';
import { tokenLossKernel } from './token-loss.wgsl.js';

let device: VramDevice;
const tensors: Tensor[] = [];
beforeAll(async () => {
  device = await openDevice({ gpu: (await createGpu()).gpu });
});
afterEach(() => {
  for (const tensor of tensors.splice(0)) tensor.dispose();
});
afterAll(() => device.dispose());

function tensor(values: Float32Array | Uint32Array): Tensor {
  const dtype: DType = values instanceof Float32Array ? 'f32' : 'u32';
  const made = createTensor(device, {
    dtype,
    shape: [values.length],
    kind: 'activations',
    label: 'test',
  });
  tensors.push(made);
  made.write(values);
  return made;
}

/** Deterministic values in [-scale, scale), of no simple pattern. */
function values(count: number, scale = 1, seed = 1): Float32Array {
  let state = seed * 2654435761;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state / 2 ** 31 - 1) * scale;
  });
}

function expectClose(actual: Float32Array, expected: Float32Array, tolerance = 1e-5): void {
  expect(actual.length).toBe(expected.length);
  actual.forEach((value, i) => {
    const wanted = expected[i] ?? Number.NaN;
    const error = Math.abs(value - wanted);
    if (!(error <= tolerance + tolerance * Math.abs(wanted))) {
      throw new Error(`[${i}] is ${value}, expected ${wanted}`);
    }
  });
}

const submit = (record: (batch: Batch) => void): void => {
  const batch = new Batch(device, 'test');
  record(batch);
  batch.submit();
};
const groups = (threads: number): number => Math.ceil(threads / 64);

describe('rms-norm', () => {
  it.each([
    [1, 4],
    [3, 252],
    [2, 256],
    [5, 576],
  ])('%i rows of %i', async (rows, columns) => {
    const x = values((rows + 2) * columns, 3);
    const weight = values(columns, 2, 7);
    const y = tensor(new Float32Array(rows * columns));
    submit((batch) =>
      batch.dispatch(rmsNormKernel, {
        params: {},
        bindings: { x: tensor(x), weight: tensor(weight), y },
        uniforms: { rows, columns, firstRow: 2, epsilon: 1e-5 },
        workgroups: rows,
      }),
    );
    expectClose(await y.readFloats(), rmsNorm(x, weight, { rows, columns, firstRow: 2 }, 1e-5));
  });
});

describe('rope', () => {
  it.each(['half', 'interleaved'] as const)('%s style, at large positions too', async (style) => {
    const shape = { tokens: 5, heads: 3, headDim: 8, rowStride: 40 };
    const rows = values(shape.tokens * shape.rowStride);
    const rotations = new Float32Array(shape.tokens * shape.headDim);
    writeRotations([0, 1, 77, 4095, 131071], Float64Array.of(1, 0.1, 0.01, 0.001), rotations);
    const onDevice = tensor(rows);
    submit((batch) =>
      batch.dispatch(ropeKernel, {
        params: { style },
        bindings: { rotations: tensor(rotations), rows: onDevice },
        uniforms: shape,
        workgroups: groups(5 * 3 * 4),
      }),
    );
    rope(rows, rotations, shape, style);
    expectClose(await onDevice.readFloats(), rows);
  });
});

describe('silu-mul', () => {
  it.each([
    [1, 4],
    [3, 260],
  ])('%i rows of %i, with values that overflow exp', async (rows, width) => {
    const gateUp = values(rows * 2 * width, 3);
    gateUp[0] = -200;
    gateUp[1] = 200;
    const y = tensor(new Float32Array(rows * width));
    submit((batch) =>
      batch.dispatch(siluMulKernel, {
        params: {},
        bindings: { gateUp: tensor(gateUp), y },
        uniforms: { rows, width },
        workgroups: groups((rows * width) / 4),
      }),
    );
    expectClose(await y.readFloats(), siluMul(gateUp, rows, width));
  });
});

describe('argmax and token loss', () => {
  it.each([1, 255, 256, 257, 5000])('rows of %i logits', async (columns) => {
    const rows = 3;
    const logits = values(rows * columns, 40);
    // A tie in the second row: the lower index wins.
    logits[columns] = 100;
    logits[2 * columns - 1] = 100;
    const targets = Uint32Array.of(0, columns - 1, Math.floor(columns / 2));
    const ids = tensor(new Uint32Array(rows));
    const losses = tensor(new Float32Array(rows));
    const onDevice = tensor(logits);
    submit((batch) => {
      batch.dispatch(argmaxKernel, {
        params: {},
        bindings: { logits: onDevice, ids },
        uniforms: { rows, columns },
        workgroups: rows,
      });
      batch.dispatch(tokenLossKernel, {
        params: {},
        bindings: { logits: onDevice, targets: tensor(targets), losses },
        uniforms: { rows, columns },
        workgroups: rows,
      });
    });
    expect(await ids.read()).toEqual(argmax(logits, rows, columns));
    // exp and log of a driver are good to a few ulp; 1e-4 of losses up to 150 nats.
    expectClose(await losses.readFloats(), tokenLoss(logits, targets, columns), 1e-4);
  });
});

describe('experts', () => {
  it.each([
    [1, 8, 2],
    [65, 8, 2],
    [3, 5, 1],
    [7, 16, 8],
  ])('routes %i tokens over %i experts to %i', async (tokens, experts, chosen) => {
    const logits = values(tokens * experts, 4);
    logits.fill(1, 0, experts); // All equal: the lowest indices win.
    const ids = tensor(new Uint32Array(tokens * chosen));
    const weights = tensor(new Float32Array(tokens * chosen));
    submit((batch) =>
      batch.dispatch(routeExpertsKernel, {
        params: {},
        bindings: { logits: tensor(logits), ids, weights },
        uniforms: { tokens, experts, chosen },
        workgroups: groups(tokens),
      }),
    );
    const expected = routeExperts(logits, { tokens, experts, chosen });
    expect(await ids.read()).toEqual(expected.ids);
    expectClose(await weights.readFloats(), expected.weights);
  });

  it('adds weighted outputs to the residual stream', async () => {
    const shape = { tokens: 33, chosen: 2, width: 12 };
    const residual = values(33 * 12);
    const outputs = values(33 * 2 * 12, 1, 3);
    const weights = values(33 * 2, 1, 5);
    const onDevice = tensor(residual);
    submit((batch) =>
      batch.dispatch(combineExpertsKernel, {
        params: {},
        bindings: { outputs: tensor(outputs), weights: tensor(weights), residual: onDevice },
        uniforms: shape,
        workgroups: groups((33 * 12) / 4),
      }),
    );
    combineExperts(residual, outputs, weights, shape);
    expectClose(await onDevice.readFloats(), residual);
  });
});
