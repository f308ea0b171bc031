/**
 * TensorFlow.js on a device of ours, both directions without a copy through the host.
 *
 * Its WebGPU backend takes a `GPUDevice` that is already there. A tensor of ours becomes one of its
 * by `zeroCopy`, which binds the buffer as it is; a tensor of its is lent by `dataToGPU`, which
 * copies on the device. Both sides submit to one queue, so what was submitted first ran first.
 */
import { fail, tensorFromBuffer, type Tensor, type VramDevice } from '@vramkit/core';
import { provideGlobals, requireRuntime, withNavigator } from './runtimes.js';

/** A tensor of TensorFlow.js. */
export interface TfTensor {
  readonly shape: readonly number[];
  data(): Promise<Float32Array>;
  /** A copy on the device, which `tensorRef` owns. */
  dataToGPU(): { readonly buffer: GPUBuffer; readonly tensorRef: TfTensor };
  dispose(): void;
}

/** What is used of TensorFlow.js. */
export interface Tf {
  matMul(a: TfTensor, b: TfTensor): TfTensor;
  relu(x: TfTensor): TfTensor;
  tensor(
    values: ArrayLike<number> | { readonly buffer: GPUBuffer; readonly zeroCopy: true },
    shape: readonly number[],
    dtype: 'float32',
  ): TfTensor;
  findBackend(name: string): object | null;
  removeBackend(name: string): void;
  registerBackend(name: string, factory: () => object): boolean;
  setBackend(name: string): Promise<boolean>;
  env(): { set(name: string, value: boolean): void };
}

interface WebGpuModule {
  readonly WebGPUBackend: new (device: GPUDevice, info: GPUAdapterInfo) => object;
}

/** The name under which the library registers its kernels. */
const BACKEND = 'webgpu';

/**
 * TensorFlow.js on `device`. One device at a time: a second call moves the library over, and
 * tensors of the first device are gone.
 * @throws VramError `unsupported` where it is not installed or refuses the device.
 */
export async function openTfjs(device: VramDevice): Promise<Tf> {
  const tf = requireRuntime('@tensorflow/tfjs-core') as Tf; // Typed above, for what is used.
  const module = requireRuntime('@tensorflow/tfjs-backend-webgpu') as WebGpuModule;
  provideGlobals(device);
  const { gpuDevice } = device;
  // In a page the module has registered a backend with a device of its own already.
  if (tf.findBackend(BACKEND) !== null) tf.removeBackend(BACKEND);
  tf.registerBackend(BACKEND, () => new module.WebGPUBackend(gpuDevice, gpuDevice.adapterInfo));
  const taken = await withNavigator({}, () => tf.setBackend(BACKEND));
  if (!taken) fail('unsupported', 'TensorFlow.js took no device');
  // Small products would be computed on the host, where their buffers cannot be lent.
  tf.env().set('WEBGPU_CPU_FORWARD', false);
  return tf;
}

/**
 * A tensor of TensorFlow.js over the memory of `tensor`; nothing is copied, and `tensor` must
 * outlive it.
 * @throws VramError `invalid-argument` for another type, or a tensor that is part of a buffer.
 */
export function lendToTfjs(tf: Tf, tensor: Tensor): TfTensor {
  if (tensor.dtype !== 'f32') fail('invalid-argument', `only f32 is lent, not ${tensor.dtype}`);
  if (tensor.offsetBytes !== 0) fail('invalid-argument', 'TensorFlow.js binds whole buffers only');
  return tf.tensor({ buffer: tensor.buffer, zeroCopy: true }, tensor.shape, 'float32');
}

/**
 * Hands `use` a tensor of ours over a result of TensorFlow.js. `use` must submit what reads it
 * before it returns; afterwards its memory goes back to TensorFlow.js.
 */
export function adoptFromTfjs(
  device: VramDevice,
  result: TfTensor,
  use: (tensor: Tensor) => void,
): void {
  const { buffer, tensorRef } = result.dataToGPU();
  try {
    use(tensorFromBuffer(device, buffer, { dtype: 'f32', shape: result.shape, label: 'of tfjs' }));
  } finally {
    tensorRef.dispose();
  }
}
