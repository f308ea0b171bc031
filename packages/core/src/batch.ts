/**
 * A batch: many dispatches and copies recorded into one submit.
 *
 * Dispatches of one batch run in order, and each sees what the ones before it wrote. Their uniforms
 * collect in host memory and go to the device by a single write just before the submit; queue order
 * makes that safe for any number of batches in flight.
 */
import { assertArgument, fail } from './assert.js';
import { nameOf, type BufferRange } from './buffer.js';
import type { VramDevice } from './device.js';
import {
  uniformBytes,
  type AnyKernel,
  type BindingDefinition,
  type CompiledKernel,
  type Kernel,
  type UniformType,
} from './kernel.js';
import { foldGrid } from './limits.js';
import type { UniformScratch } from './uniform-scratch.js';

/** What one dispatch needs: the types follow from the kernel. */
export interface DispatchRequest<
  Params,
  Bindings extends Readonly<Record<string, BindingDefinition<Params>>>,
  Uniforms extends Readonly<Record<string, UniformType>>,
> {
  /** Parameter record of the kernel's source; selects the compiled variant. */
  readonly params: Params;
  /** A buffer range or tensor per binding. */
  readonly bindings: { readonly [Name in keyof Bindings]: BufferRange };
  /** A number per uniform member. */
  readonly uniforms: { readonly [Name in keyof Uniforms]: number };
  /** A linear count, folded into two dimensions; or an explicit grid. Zero dispatches nothing. */
  readonly workgroups: number | readonly [number, number, number];
}

/**
 * Records GPU work and submits it at once.
 *
 * @example
 * ```ts
 * import { Batch, type Tensor, type VramDevice, defineKernel } from '@vramkit/core';
 * const copy = defineKernel({
 *   name: 'copy',
 *   bindings: {
 *     x: { access: 'read', type: 'array<f32>' },
 *     y: { access: 'read-write', type: 'array<f32>' },
 *   },
 *   uniforms: { count: 'u32' },
 *   source: () => `
 * @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
 *   if (id.x < uniforms.count) { y[id.x] = x[id.x]; }
 * }`,
 * });
 * export function run(device: VramDevice, x: Tensor, y: Tensor, count: number): void {
 *   const batch = new Batch(device, 'copy');
 *   batch.dispatch(copy, {
 *     params: {},
 *     bindings: { x, y },
 *     uniforms: { count },
 *     workgroups: Math.ceil(count / 64),
 *   });
 *   batch.submit();
 * }
 * ```
 */
export class Batch {
  readonly #device: VramDevice;
  readonly #label: string;
  #encoder: GPUCommandEncoder | undefined;
  #pass: GPUComputePassEncoder | undefined;
  #pipeline: GPUComputePipeline | undefined;
  #scratch: UniformScratch | undefined;
  readonly #ranges: BufferRange[] = [];

  constructor(device: VramDevice, label: string) {
    device.assertUsable();
    this.#device = device;
    this.#label = label;
  }

  /**
   * Records one dispatch.
   * @throws VramError `invalid-argument` for a binding over the limits or misaligned, a tensor of
   * another type than the kernel reads or of another device, a written range that overlaps another,
   * or a grid too large.
   */
  dispatch<
    Params,
    Bindings extends Readonly<Record<string, BindingDefinition<Params>>>,
    Uniforms extends Readonly<Record<string, UniformType>>,
  >(
    kernel: Kernel<Params, Bindings, Uniforms>,
    request: DispatchRequest<Params, Bindings, Uniforms>,
  ): void {
    const device = this.#device;
    const { maxComputeWorkgroupsPerDimension: maxGroups } = device.limits;
    const grid =
      typeof request.workgroups === 'number'
        ? foldGrid(request.workgroups, maxGroups)
        : request.workgroups;
    if (grid[0] === 0 || grid[1] === 0 || grid[2] === 0) return;
    if (grid[0] > maxGroups || grid[1] > maxGroups || grid[2] > maxGroups) {
      fail(
        'invalid-argument',
        `grid ${grid.join(' x ')} of '${kernel.name}' exceeds ${maxGroups}`,
        {
          kernel: kernel.name,
          grid,
          maxGroups,
        },
      );
    }
    // Caches hold kernels of every parameter type; the request's types were checked above.
    const anyKernel = kernel as unknown as AnyKernel;
    // A mapped type over string keys is a record of its values.
    const bindings = request.bindings as Readonly<Record<string, BufferRange>>;
    const writable = sharesBuffer(anyKernel, bindings);
    const compiled = device.kernels.compiled(anyKernel, request.params, writable);
    this.#collectRanges(compiled, bindings);
    checkOverlaps(compiled, this.#ranges, writable);
    const group = device.kernels.bindGroup(compiled, this.#ranges, device.uniformBuffer);
    const offset = this.#writeUniforms(kernel.uniforms, request.uniforms);
    const pass = this.#openPass();
    if (this.#pipeline !== compiled.pipeline) {
      pass.setPipeline(compiled.pipeline);
      this.#pipeline = compiled.pipeline;
    }
    if (compiled.uniformIndex >= 0) pass.setBindGroup(0, group, [offset]);
    else pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(grid[0], grid[1], grid[2]);
    device.counters.dispatches += 1;
  }

  #collectRanges(compiled: CompiledKernel, bindings: Readonly<Record<string, BufferRange>>): void {
    const { maxStorageBufferBindingSize, minStorageBufferOffsetAlignment } = this.#device.limits;
    this.#ranges.length = 0;
    for (const name of compiled.names) {
      const range = bindings[name];
      if (range === undefined) {
        fail('invalid-argument', `kernel '${compiled.kernel.name}' needs a binding '${name}'`);
      }
      this.#checkOwner(range);
      checkElements(compiled.kernel, name, range);
      if (
        range.sizeBytes <= 0 ||
        range.sizeBytes > maxStorageBufferBindingSize ||
        range.offsetBytes % minStorageBufferOffsetAlignment !== 0
      ) {
        fail(
          'invalid-argument',
          `binding '${name}' of '${compiled.kernel.name}': ${range.sizeBytes} B at ` +
            `${range.offsetBytes}; the device binds 1 to ${maxStorageBufferBindingSize} B at ` +
            `multiples of ${minStorageBufferOffsetAlignment}`,
          { binding: name, sizeBytes: range.sizeBytes, offsetBytes: range.offsetBytes },
        );
      }
      this.#ranges.push(range);
    }
  }

  /** Without it the driver would say so later, on either device. */
  #checkOwner(range: BufferRange): void {
    const { device = this.#device } = range;
    if (device.gpuDevice === this.#device.gpuDevice) return;
    fail('invalid-argument', `${nameOf(range)} is of another device than '${this.#label}'`);
  }

  #writeUniforms(
    types: Readonly<Record<string, UniformType>>,
    values: Readonly<Record<string, number>>,
  ): number {
    const size = uniformBytes(types);
    if (size === 0) return 0;
    const alignment = this.#device.limits.minUniformBufferOffsetAlignment;
    const slot = Math.ceil(size / alignment) * alignment;
    const capacity = this.#device.uniformBuffer.size;
    if (this.#scratch !== undefined && this.#scratch.usedBytes + slot > capacity) this.#flush();
    const scratch = (this.#scratch ??= this.#device.takeScratch());
    const start = scratch.usedBytes;
    let at = start;
    for (const name in types) {
      const value = values[name];
      if (value === undefined || Number.isNaN(value)) {
        fail('invalid-argument', `uniform '${name}' is ${value}`, { name });
      }
      if (types[name] === 'f32') scratch.view.setFloat32(at, value, true);
      else if (types[name] === 'i32') scratch.view.setInt32(at, value, true);
      else scratch.view.setUint32(at, value, true);
      at += 4;
    }
    scratch.usedBytes = start + slot;
    return start;
  }

  #openPass(): GPUComputePassEncoder {
    this.#encoder ??= this.#device.gpuDevice.createCommandEncoder({ label: this.#label });
    this.#pass ??= this.#encoder.beginComputePass({ label: this.#label });
    return this.#pass;
  }

  #closePass(): GPUCommandEncoder {
    this.#pass?.end();
    this.#pass = undefined;
    this.#pipeline = undefined;
    this.#encoder ??= this.#device.gpuDevice.createCommandEncoder({ label: this.#label });
    return this.#encoder;
  }

  /**
   * Records a copy of all of `from` to the start of `to`. Within one buffer WebGPU has no copy:
   * use a kernel there.
   * @throws VramError `invalid-argument` where `to` is smaller than `from`, both are one buffer, or
   * one is of another device.
   */
  copy(from: BufferRange, to: BufferRange): void {
    this.#checkOwner(from);
    this.#checkOwner(to);
    assertArgument(from.sizeBytes <= to.sizeBytes, 'copy target is smaller than its source');
    assertArgument(from.buffer !== to.buffer, 'WebGPU cannot copy within one buffer');
    if (from.sizeBytes === 0) return;
    const encoder = this.#closePass();
    encoder.copyBufferToBuffer(
      from.buffer,
      from.offsetBytes,
      to.buffer,
      to.offsetBytes,
      from.sizeBytes,
    );
  }

  /** Records a fill of the range with zero bytes. */
  clear(range: BufferRange): void {
    this.#checkOwner(range);
    if (range.sizeBytes === 0) return;
    this.#closePass().clearBuffer(range.buffer, range.offsetBytes, range.sizeBytes);
  }

  #flush(): void {
    const device = this.#device;
    const scratch = this.#scratch;
    if (scratch !== undefined) {
      if (scratch.usedBytes > 0) {
        device.gpuDevice.queue.writeBuffer(
          device.uniformBuffer,
          0,
          scratch.bytes,
          0,
          scratch.usedBytes,
        );
      }
      device.returnScratch(scratch);
      this.#scratch = undefined;
    }
    if (this.#encoder === undefined) return;
    const commands = this.#closePass().finish();
    this.#encoder = undefined;
    device.gpuDevice.queue.submit([commands]);
    device.counters.submits += 1;
  }

  /**
   * Submits what was recorded; the batch is then empty and can be used again.
   * Errors of the driver surface at the next {@link VramDevice.settle} or readback.
   * @throws VramError `device-lost` or `disposed`.
   */
  submit(): void {
    this.#device.assertUsable();
    this.#flush();
  }
}

/** A binding of f32 takes tensors of f32 alone; one of u32 may be words of anything. */
function checkElements(kernel: AnyKernel, name: string, range: BufferRange): void {
  if (range.dtype === undefined || range.dtype === 'f32') return;
  const type = kernel.bindings[name]?.type;
  if (typeof type !== 'string' || !type.includes('f32')) return;
  fail(
    'invalid-argument',
    `binding '${name}' of '${kernel.name}' is ${type}, ${nameOf(range)} is ${range.dtype}`,
    { binding: name, dtype: range.dtype },
  );
}

/** Ranges that overlap may only be read, in all of their buffer; the driver would say so later. */
function checkOverlaps(
  { kernel, names }: CompiledKernel,
  ranges: readonly BufferRange[],
  writable: boolean,
): void {
  const isWritable = (index: number): boolean =>
    writable || kernel.bindings[names[index] ?? '']?.access === 'read-write';
  ranges.forEach((one, first) => {
    for (let second = first + 1; second < ranges.length; second++) {
      const other = ranges[second];
      if (other?.buffer !== one.buffer || !isWritable(first) || !isWritable(second)) continue;
      const start = Math.max(one.offsetBytes, other.offsetBytes);
      if (start >= Math.min(endOf(one), endOf(other))) continue;
      const overlapping = [names[first] ?? '', names[second] ?? ''] as const;
      fail(
        'invalid-argument',
        `bindings '${overlapping.join("' and '")}' of '${kernel.name}' overlap in a buffer that ` +
          `it writes, which WebGPU forbids; take one of them from other memory`,
        { kernel: kernel.name, bindings: overlapping },
      );
    }
  });
}

function endOf({ offsetBytes, sizeBytes }: BufferRange): number {
  return offsetBytes + sizeBytes;
}

/** Whether a read binding and a writable one name the same buffer. */
function sharesBuffer(kernel: AnyKernel, bindings: Readonly<Record<string, BufferRange>>): boolean {
  for (const read in kernel.bindings) {
    if (kernel.bindings[read]?.access !== 'read') continue;
    for (const write in kernel.bindings) {
      if (
        kernel.bindings[write]?.access === 'read-write' &&
        bindings[read]?.buffer === bindings[write]?.buffer
      ) {
        return true;
      }
    }
  }
  return false;
}
