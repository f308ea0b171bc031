/**
 * TensorFlow.js' WebGPU backend as a peer of products, f32 only, on a Dawn device of this
 * workspace: `node --conditions=@vramkit/source --import tsx tools/peers/src/tensorflow.ts`, lines
 * as in `product-protocol.ts`.
 */
import * as tf from '@tensorflow/tfjs-core';
import { WebGPUBackend } from '@tensorflow/tfjs-backend-webgpu';
import { createGpu } from '@vramkit/adapter';
import { chainActivations, chainWeights, type ProductOpen } from './product-protocol.js';
import { serveProducts, timeRuns } from './product-server.js';

const bufferUsage = {
  MAP_READ: 0x1,
  MAP_WRITE: 0x2,
  COPY_SRC: 0x4,
  COPY_DST: 0x8,
  UNIFORM: 0x40,
  STORAGE: 0x80,
  QUERY_RESOLVE: 0x200,
};

let chain: (() => Promise<void>) | undefined;
/** Dawn's promises settle for as long as its entry point lives. */
let held: GPU | undefined;

async function open({ backend, format, rows, size, layers }: ProductOpen): Promise<void> {
  if (backend !== 'gpu' || format !== 'f32') throw new Error('f32 on WebGPU only');
  const { gpu } = await createGpu();
  held = gpu;
  const adapter = await gpu.requestAdapter();
  if (adapter === null) throw new Error('no adapter');
  const { maxComputeWorkgroupStorageSize, maxBufferSize, maxStorageBufferBindingSize } =
    adapter.limits;
  const device = await adapter.requestDevice({
    requiredLimits: { maxComputeWorkgroupStorageSize, maxBufferSize, maxStorageBufferBindingSize },
  });
  // It looks for global names of WebGPU, which Node lacks.
  const buffer = device.createBuffer({ size: 4, usage: bufferUsage.COPY_DST });
  Object.defineProperty(globalThis, 'navigator', { value: { gpu }, configurable: true });
  Object.assign(globalThis, {
    GPUBuffer: buffer.constructor,
    GPUBufferUsage: bufferUsage,
    GPUMapMode: { READ: 1, WRITE: 2 },
  });
  buffer.destroy();
  // Its kernels are registered under this name.
  tf.registerBackend('webgpu', () => new WebGPUBackend(device as never, adapter.info as never));
  await tf.setBackend('webgpu');
  const x = tf.tensor2d(chainActivations(rows, size), [rows, size]);
  const weights = tf.tensor2d(chainWeights(size), [size, size]);
  chain = async () => {
    const y = tf.tidy(() => {
      let value: tf.Tensor2D = x;
      for (let layer = 0; layer < layers; layer += 1) value = tf.matMul(value, weights);
      return value;
    });
    const [first] = await y.data();
    y.dispose();
    if (!Number.isFinite(first)) throw new Error('the result is not finite');
  };
  await chain();
}

await serveProducts({
  open: async (request) => {
    await open(request);
    return { version: `tfjs ${tf.version_core}${held === undefined ? '' : ' on Dawn'}` };
  },
  run: async ({ count }) => {
    if (chain === undefined) throw new Error('run came before open');
    return { seconds: await timeRuns(count, chain) };
  },
});
