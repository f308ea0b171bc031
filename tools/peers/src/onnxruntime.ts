/**
 * ONNX Runtime as a peer of products: `node --import tsx tools/peers/src/onnxruntime.ts`, lines as
 * in `product-protocol.ts`.
 *
 * `gpu` is its WebGPU provider, which onnxruntime-node carries for Linux on x64 and which takes the
 * Vulkan driver that the environment names. `cpu` runs in one thread.
 */
import { createRequire } from 'node:module';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { writeOnnxModel, type OnnxNode, type OnnxTensor } from './onnx-model.js';
import {
  chainActivations,
  chainWeights,
  decodeBytes,
  encodeBytes,
  type MatMulNBitsRequest,
  type ProductOpen,
} from './product-protocol.js';
import { serveProducts, timeRuns } from './product-server.js';

const BITS = 4;
const GROUP = 32;

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** One product's node and weights. */
interface Product {
  readonly constants: readonly OnnxTensor[];
  readonly node: Omit<OnnxNode, 'inputs' | 'output'>;
}

function quantizedProduct(size: number): Product {
  const codes = new Uint8Array((size * size * BITS) / 8);
  for (let i = 0; i < codes.length; i += 1) codes[i] = Math.imul(i, 2654435761) >>> 24;
  // Codes minus 8 have a root mean square of 4.6.
  const scales = new Float32Array((size * size) / GROUP).fill(1 / 4.6 / Math.sqrt(size));
  const shape = [size, size / GROUP, (GROUP * BITS) / 8];
  return {
    constants: [
      { name: 'codes', type: 'u8', shape, bytes: codes },
      { name: 'scales', type: 'f32', shape: [scales.length], bytes: bytesOf(scales) },
    ],
    node: {
      operator: 'MatMulNBits',
      domain: 'com.microsoft',
      attributes: { K: size, N: size, bits: BITS, block_size: GROUP },
    },
  };
}

function denseProduct(size: number): Product {
  const bytes = bytesOf(chainWeights(size));
  return {
    constants: [{ name: 'weights', type: 'f32', shape: [size, size], bytes }],
    node: { operator: 'MatMul', domain: '', attributes: {} },
  };
}

function createSession(model: Uint8Array, backend: 'cpu' | 'gpu'): Promise<InferenceSession> {
  return InferenceSession.create(model, {
    executionProviders: [backend === 'gpu' ? 'webgpu' : 'cpu'],
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
  });
}

let chain: (() => Promise<void>) | undefined;

async function open({ backend, format, rows, size, layers }: ProductOpen): Promise<void> {
  const { constants, node } = format === 'f32' ? denseProduct(size) : quantizedProduct(size);
  const nodes = Array.from({ length: layers }, (_, layer) => ({
    ...node,
    inputs: [`y${layer}`, ...constants.map(({ name }) => name)],
    output: `y${layer + 1}`,
  }));
  const shape = [rows, size];
  const model = writeOnnxModel({
    nodes,
    constants,
    input: { name: 'y0', shape },
    output: { name: `y${layers}`, shape },
  });
  const session = await createSession(model, backend);
  const y0 = new Tensor('float32', chainActivations(rows, size), shape);
  chain = async () => {
    const result = (await session.run({ y0 }))[`y${layers}`];
    if (!Number.isFinite(Number(result?.data[0]))) throw new Error('the result is not finite');
  };
  await chain();
}

async function matMulNBits(request: MatMulNBitsRequest): Promise<string> {
  const { backend, rows, columns, bits, groupSize, xRows } = request;
  const groups = Math.ceil(columns / groupSize);
  const u8 = 'u8' as const;
  const zeroPoints = request.zeroPoints === undefined ? undefined : decodeBytes(request.zeroPoints);
  const constants: OnnxTensor[] = [
    {
      name: 'codes',
      type: u8,
      shape: [rows, groups, (groupSize * bits) / 8],
      bytes: decodeBytes(request.codes),
    },
    { name: 'scales', type: 'f32', shape: [rows * groups], bytes: decodeBytes(request.scales) },
  ];
  if (zeroPoints !== undefined) {
    const name = 'zeroPoints';
    constants.push({ name, type: u8, shape: [zeroPoints.length], bytes: zeroPoints });
  }
  const model = writeOnnxModel({
    nodes: [
      {
        operator: 'MatMulNBits',
        domain: 'com.microsoft',
        inputs: ['x', ...constants.map(({ name }) => name)],
        output: 'y',
        attributes: { K: columns, N: rows, bits, block_size: groupSize },
      },
    ],
    constants,
    input: { name: 'x', shape: [xRows, columns] },
    output: { name: 'y', shape: [xRows, rows] },
  });
  const session = await createSession(model, backend);
  const x = new Float32Array(decodeBytes(request.x).buffer);
  const { y } = await session.run({ x: new Tensor('float32', x, [xRows, columns]) });
  if (!(y?.data instanceof Float32Array)) throw new Error('the result is not f32');
  const text = encodeBytes(y.data);
  await session.release();
  return text;
}

await serveProducts({
  open: async (request) => {
    await open(request);
    const entry = createRequire(import.meta.url)('onnxruntime-node/package.json') as unknown;
    // The package's own file, which fixes its shape.
    const { version } = entry as { version: string };
    return { version: `onnxruntime-node ${version}` };
  },
  run: async ({ count }) => {
    if (chain === undefined) throw new Error('run came before open');
    return { seconds: await timeRuns(count, chain) };
  },
  matMulNBits: async (request) => ({ y: await matMulNBits(request) }),
});
