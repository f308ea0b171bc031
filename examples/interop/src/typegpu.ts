/**
 * TypeGPU on a device of ours: a typed buffer of its is a tensor of ours, and the other way round.
 *
 * Both wrap a plain `GPUBuffer`, so neither direction copies. Whoever made the buffer destroys it.
 */
import { pathToFileURL } from 'node:url';
import { fail, tensorFromBuffer, type Shape, type Tensor, type VramDevice } from '@vramkit/core';
import { provideGlobals, resolveRuntime } from './runtimes.js';

/** A buffer of TypeGPU that holds floats. */
export interface TypedBuffer {
  $usage(usage: 'storage'): TypedBuffer;
  write(values: readonly number[]): void;
  read(): Promise<number[]>;
  destroy(): void;
}

/** What TypeGPU makes of a device. */
export interface TypeGpuRoot {
  createBuffer(schema: object, of?: readonly number[] | GPUBuffer): TypedBuffer;
  createBindGroup(layout: object, entries: Readonly<Record<string, TypedBuffer>>): object;
  createComputePipeline(options: { readonly compute: object }): TypedPipeline;
  unwrap(buffer: TypedBuffer): GPUBuffer;
  destroy(): void;
}

/** A compute pipeline of TypeGPU. */
export interface TypedPipeline {
  with(bindGroup: object): TypedPipeline;
  dispatchWorkgroups(count: number): void;
}

interface ComputeFunction {
  $uses(names: Readonly<Record<string, object>>): object;
}

/** What is used of TypeGPU; `d` holds its data types. */
export interface TypeGpu {
  readonly root: TypeGpuRoot;
  readonly tgpu: {
    initFromDevice(options: { readonly device: GPUDevice }): TypeGpuRoot;
    bindGroupLayout(entries: Readonly<Record<string, object>>): object;
    computeFn(options: {
      readonly in: Readonly<Record<string, object>>;
      readonly workgroupSize: readonly number[];
    }): (wgsl: string) => ComputeFunction;
  };
  readonly d: {
    readonly f32: object;
    readonly builtin: { readonly globalInvocationId: object };
    arrayOf(type: object, count: number): object;
  };
}

/**
 * TypeGPU on `device`, which it uses and never destroys.
 * @throws VramError `unsupported` where it is not installed.
 */
export async function openTypeGpu(device: VramDevice): Promise<TypeGpu> {
  provideGlobals(device);
  const from = async (specifier: string): Promise<unknown> =>
    import(pathToFileURL(resolveRuntime(specifier)).href);
  const { tgpu } = (await from('typegpu')) as Pick<TypeGpu, 'tgpu'>; // Typed for what is used.
  const d = (await from('typegpu/data')) as TypeGpu['d'];
  return { tgpu, d, root: tgpu.initFromDevice({ device: device.gpuDevice }) };
}

/** A typed buffer over the memory of `tensor`, f32 and not part of a larger buffer. */
export function lendToTypeGpu({ root, d }: TypeGpu, tensor: Tensor): TypedBuffer {
  if (tensor.dtype !== 'f32') fail('invalid-argument', `only f32 is lent, not ${tensor.dtype}`);
  if (tensor.offsetBytes !== 0) fail('invalid-argument', 'TypeGPU binds whole buffers only');
  const count = tensor.shape.reduce((product, extent) => product * extent, 1);
  return root.createBuffer(d.arrayOf(d.f32, count), tensor.buffer).$usage('storage');
}

/** A tensor over the memory of a typed buffer, which TypeGPU goes on owning. */
export function adoptFromTypeGpu(
  device: VramDevice,
  { root }: TypeGpu,
  buffer: TypedBuffer,
  shape: Shape,
): Tensor {
  return tensorFromBuffer(device, root.unwrap(buffer), {
    dtype: 'f32',
    shape,
    label: 'of TypeGPU',
  });
}
