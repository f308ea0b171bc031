/**
 * TensorFlow.js on a device of ours: its kernels run on the `GPUDevice` that core opened, its
 * buffers come out of the device's budgeted memory, it reads parameters from buffers of ours, and
 * we read gradients from buffers of its.
 *
 * Nothing passes through the host: a tensor over a buffer of ours is made with `zeroCopy`, and a
 * gradient is lent as the buffer that it lies in. Both sides submit to one queue, so whatever was
 * submitted first has run first.
 *
 * The library lives in `tools/autograd`, apart from the workspaces, so its types are not there when
 * this file is compiled; the few functions in use are typed here.
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { installPinned, workspaceFolder } from '@vramkit/bench';
import { DEFAULT_BUFFER_USAGE, fail, type BufferRange, type VramDevice } from '@vramkit/core';
import { TfjsBuffers } from './tfjs-buffers.js';

/** A tensor of TensorFlow.js. */
export interface TfTensor {
  readonly shape: readonly number[];
  readonly dataId: object;
  data(): Promise<Float32Array | Int32Array>;
  /** A copy on the device; `tensorRef` owns it. */
  dataToGPU(): { readonly buffer: GPUBuffer; readonly tensorRef: TfTensor };
  dispose(): void;
}

type Unary = (x: TfTensor) => TfTensor;
type Binary = (a: TfTensor, b: TfTensor) => TfTensor;
type Reduce = (x: TfTensor, axis?: number, keepDims?: boolean) => TfTensor;

/** What is used of TensorFlow.js. */
export interface Tf {
  readonly add: Binary;
  readonly sub: Binary;
  readonly mul: Binary;
  readonly greaterEqual: Binary;
  readonly neg: Unary;
  readonly rsqrt: Unary;
  readonly sigmoid: Unary;
  readonly square: Unary;
  readonly zerosLike: Unary;
  readonly sum: Reduce;
  readonly mean: Reduce;
  readonly softmax: Unary;
  readonly logSoftmax: Unary;
  matMul(a: TfTensor, b: TfTensor, transposeA?: boolean, transposeB?: boolean): TfTensor;
  reshape(x: TfTensor, shape: readonly number[]): TfTensor;
  transpose(x: TfTensor, axes: readonly number[]): TfTensor;
  slice(x: TfTensor, begin: readonly number[], size: readonly number[]): TfTensor;
  topk(x: TfTensor, k: number): { readonly values: TfTensor };
  cast(x: TfTensor, dtype: 'float32'): TfTensor;
  oneHot(x: TfTensor, depth: number): TfTensor;
  scalar(value: number): TfTensor;
  tensor(
    values: ArrayLike<number> | { readonly buffer: GPUBuffer; readonly zeroCopy: true },
    shape: readonly number[],
    dtype?: 'float32' | 'int32',
  ): TfTensor;
  customGrad(
    f: (x: TfTensor) => { readonly value: TfTensor; readonly gradFunc: Unary },
  ): (x: TfTensor) => TfTensor;
  valueAndGrads(
    f: (...xs: TfTensor[]) => TfTensor,
  ): (xs: readonly TfTensor[]) => { readonly value: TfTensor; readonly grads: TfTensor[] };
  tidy<T>(f: () => T): T;
  memory(): { readonly numTensors: number; readonly numBytesAllocatedInGPU: number };
  env(): { set(name: string, value: boolean): void };
  findBackend(name: string): object | null;
  removeBackend(name: string): void;
  registerBackend(name: string, factory: () => object): boolean;
  setBackend(name: string): Promise<boolean>;
  ready(): Promise<void>;
}

/** What is used of the library's backend. */
interface Backend {
  bufferManager: TfjsBuffers;
  readonly tensorMap: {
    get(dataId: object): { resource: GPUBuffer | null; values: ArrayLike<number> | null } & {
      readonly dtype: string;
    };
  };
  uploadToGPU(dataId: object): void;
}

interface WebGpuModule {
  readonly WebGPUBackend: new (device: GPUDevice, info: GPUAdapterInfo) => Backend;
}

const FOLDER = 'tools/autograd';
/** The name under which the library registers its kernels. */
const BACKEND = 'webgpu';

/** The library asks for names that a page has and Node lacks. */
function provideGlobals({ gpuDevice }: VramDevice): void {
  if ('GPUBufferUsage' in globalThis) return;
  const buffer = gpuDevice.createBuffer({ size: 4, usage: 8 });
  const texture = gpuDevice.createTexture({ size: [1], format: 'r8unorm', usage: 4 });
  Object.assign(globalThis, {
    GPUBuffer: buffer.constructor,
    GPUTexture: texture.constructor,
    GPUBufferUsage: {
      ...{ MAP_READ: 0x1, MAP_WRITE: 0x2, COPY_SRC: 0x4, COPY_DST: 0x8 },
      ...{ UNIFORM: 0x40, STORAGE: 0x80, QUERY_RESOLVE: 0x200 },
    },
    GPUMapMode: { READ: 1, WRITE: 2 },
  });
  buffer.destroy();
  texture.destroy();
}

/** Runs `make` while `navigator.gpu` says that there is WebGPU, which the backend insists on. */
function withNavigator<T>(make: () => T): T {
  const before = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  Object.defineProperty(globalThis, 'navigator', { value: { gpu: {} }, configurable: true });
  try {
    return make();
  } finally {
    if (before !== undefined) Object.defineProperty(globalThis, 'navigator', before);
    else Reflect.deleteProperty(globalThis, 'navigator');
  }
}

/** The library's backend with buffers of ours, and uploads that need no mapped ones. */
function openBackend({ WebGPUBackend }: WebGpuModule, device: VramDevice): Backend {
  const { gpuDevice } = device;
  class OurBackend extends WebGPUBackend {
    constructor() {
      super(gpuDevice, gpuDevice.adapterInfo);
      this.bufferManager = new TfjsBuffers(device);
    }

    override uploadToGPU(dataId: object): void {
      const tensor = this.tensorMap.get(dataId);
      const { values, dtype } = tensor;
      if (tensor.resource !== null && tensor.resource !== undefined) return;
      if (values === null || values === undefined) return super.uploadToGPU(dataId);
      const bytes = dtype === 'float32' ? Float32Array.from(values) : Int32Array.from(values);
      const buffer = this.bufferManager.acquireBuffer(bytes.byteLength, DEFAULT_BUFFER_USAGE);
      gpuDevice.queue.writeBuffer(buffer, 0, bytes);
      Object.assign(tensor, { resource: buffer, values: null });
    }
  }
  return withNavigator(() => new OurBackend());
}

/**
 * TensorFlow.js with all its kernels on `device` and all its buffers in the device's memory;
 * installs it where it is missing. One device at a time: a second call moves the library over, and
 * tensors of the first device are gone. {@link closeTfjs} comes before the device's disposal.
 * @throws Error where npm cannot install it.
 */
export async function openTfjs(device: VramDevice, log: (line: string) => void): Promise<Tf> {
  await installPinned(FOLDER, 'TensorFlow.js and its parts, 310 MB', log);
  const require = createRequire(join(workspaceFolder, FOLDER, 'package.json'));
  const tf = require('@tensorflow/tfjs') as Tf; // Typed above, for what is used.
  const backends = require('@tensorflow/tfjs-backend-webgpu') as WebGpuModule;
  provideGlobals(device);
  // In a page the module has registered a backend with a device of its own already.
  closeTfjs(tf);
  tf.registerBackend(BACKEND, () => openBackend(backends, device));
  if (!(await tf.setBackend(BACKEND))) fail('unsupported', 'TensorFlow.js took no device');
  // Small products would be computed on the host, where their buffers cannot be lent.
  tf.env().set('WEBGPU_CPU_FORWARD', false);
  return tf;
}

/** Frees all that the library has on its device; tensors of it are gone. Idempotent. */
export function closeTfjs(tf: Tf): void {
  if (tf.findBackend(BACKEND) !== null) tf.removeBackend(BACKEND);
}

/** A tensor over memory of ours, f32, which must begin its buffer; nothing is copied. */
export function lendTensor(tf: Tf, range: BufferRange, shape: readonly number[]): TfTensor {
  if (range.offsetBytes !== 0) fail('invalid-argument', 'TensorFlow.js binds whole buffers only');
  return tf.tensor({ buffer: range.buffer, zeroCopy: true }, shape, 'float32');
}

/**
 * Hands the buffer of a tensor to `use`, which must submit what reads it before it returns; then
 * both are given back.
 */
export function adoptTensor(tensor: TfTensor, use: (range: BufferRange) => void): void {
  const { buffer, tensorRef } = tensor.dataToGPU();
  try {
    use({ buffer, offsetBytes: 0, sizeBytes: buffer.size });
  } finally {
    tensorRef.dispose();
  }
}
