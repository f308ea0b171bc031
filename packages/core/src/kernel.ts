/**
 * Kernels: a definition with typed bindings, and the cache of what the driver makes of it.
 *
 * A definition is a pure function from a parameter record to WGSL. Core writes the declarations:
 * read bindings first, then one uniform struct of scalars named `uniforms`, then writable bindings.
 * The uniform binding has a dynamic offset into one buffer per device, so numbers that change with
 * each step (lengths, positions) need neither a new bind group nor a new buffer.
 *
 * WebGPU forbids one buffer to be read-only and writable in the same dispatch, whatever the ranges.
 * Tensors of one arena share a buffer, so a dispatch that meets this case takes a variant of the
 * pipeline with every binding writable; there no two ranges may overlap, not even read ones.
 */
import { assertInvariant, fail } from './assert.js';
import type { BufferRange } from './buffer.js';
import type { DeviceCounters } from './counters.js';
import type { DeviceLimits } from './limits.js';

/** Scalar types of uniform members. */
export type UniformType = 'u32' | 'i32' | 'f32';

/** One storage binding. */
export interface BindingDefinition<Params> {
  /** Whether the kernel only reads it. */
  readonly access: 'read' | 'read-write';
  /** WGSL store type, such as `array<vec4<f32>>`. */
  readonly type: string | ((params: Params) => string);
}

/** A compute kernel with entry point `main`. */
export interface KernelDefinition<
  Params,
  Bindings extends Readonly<Record<string, BindingDefinition<Params>>>,
  Uniforms extends Readonly<Record<string, UniformType>>,
> {
  /** Name in errors, traces and pipeline labels. */
  readonly name: string;
  /** Storage bindings by WGSL variable name; reads are declared before writes. */
  readonly bindings: Bindings;
  /** Members of the uniform struct `uniforms`, in order. */
  readonly uniforms: Uniforms;
  /** WGSL without the declarations of bindings and uniforms. Pure. */
  readonly source: (params: Params) => string;
  /** WGSL extensions to enable, such as `f16`. Default: none. */
  readonly enables?: (params: Params) => readonly string[];
}

/** A kernel as {@link defineKernel} returns it. */
export type Kernel<
  Params,
  Bindings extends Readonly<Record<string, BindingDefinition<Params>>>,
  Uniforms extends Readonly<Record<string, UniformType>>,
> = KernelDefinition<Params, Bindings, Uniforms>;

/** Any kernel whose parameters are not of interest, as caches hold it. */
// Parameter records appear contravariantly, so only `never` admits every kernel without `any`.
export type AnyKernel = KernelDefinition<
  never,
  Readonly<Record<string, BindingDefinition<never>>>,
  Readonly<Record<string, UniformType>>
>;

/**
 * Declares a kernel; types of parameters, bindings and uniforms are inferred.
 *
 * @example
 * ```ts
 * import { defineKernel } from '@vramkit/core';
 * export const scale = defineKernel({
 *   name: 'scale',
 *   bindings: {
 *     x: { access: 'read', type: 'array<f32>' },
 *     y: { access: 'read-write', type: 'array<f32>' },
 *   },
 *   uniforms: { count: 'u32', factor: 'f32' },
 *   source: (params: { workgroupSize: number }) => `
 * @compute @workgroup_size(${params.workgroupSize})
 * fn main(@builtin(global_invocation_id) id: vec3<u32>) {
 *   if (id.x < uniforms.count) { y[id.x] = uniforms.factor * x[id.x]; }
 * }`,
 * });
 * ```
 */
// @__NO_SIDE_EFFECTS__ bundlers leave out kernels that nothing uses
export function defineKernel<
  Params,
  const Bindings extends Readonly<Record<string, BindingDefinition<Params>>>,
  const Uniforms extends Readonly<Record<string, UniformType>>,
>(definition: KernelDefinition<Params, Bindings, Uniforms>): Kernel<Params, Bindings, Uniforms> {
  return definition;
}

/** Binding names in declaration order: reads, then writes. */
function orderedBindings(kernel: AnyKernel): { reads: string[]; writes: string[] } {
  const names = Object.keys(kernel.bindings);
  const isRead = (name: string): boolean => kernel.bindings[name]?.access === 'read';
  return { reads: names.filter(isRead), writes: names.filter((name) => !isRead(name)) };
}

/**
 * The complete WGSL of a kernel, as the driver gets it.
 * @param writable Declares every binding writable, for dispatches whose tensors share a buffer.
 */
export function kernelSource<
  Params,
  Bindings extends Readonly<Record<string, BindingDefinition<Params>>>,
  Uniforms extends Readonly<Record<string, UniformType>>,
>(kernel: Kernel<Params, Bindings, Uniforms>, params: Params, writable = false): string {
  // Only names and access are read, which do not depend on the parameter type.
  const { reads, writes } = orderedBindings(kernel as unknown as AnyKernel);
  const members = Object.entries(kernel.uniforms);
  const lines: string[] = (kernel.enables?.(params) ?? []).map((name) => `enable ${name};`);
  let index = 0;
  const declare = (name: string): void => {
    const binding = kernel.bindings[name];
    if (binding === undefined) return;
    const type = typeof binding.type === 'function' ? binding.type(params) : binding.type;
    const access = writable || binding.access === 'read-write' ? 'read_write' : 'read';
    lines.push(`@group(0) @binding(${index++}) var<storage, ${access}> ${name}: ${type};`);
  };
  reads.forEach(declare);
  if (members.length > 0) {
    lines.push(`struct Uniforms {`, ...members.map(([name, type]) => `  ${name}: ${type},`), `}`);
    lines.push(`@group(0) @binding(${index++}) var<uniform> uniforms: Uniforms;`);
  }
  writes.forEach(declare);
  return `${lines.join('\n')}\n${kernel.source(params)}`;
}

/** Bytes of a kernel's uniform struct: four per member, rounded up to 16. */
export function uniformBytes(uniforms: Readonly<Record<string, UniformType>>): number {
  return Math.ceil((Object.keys(uniforms).length * 4) / 16) * 16;
}

/** A compiled variant of a kernel. */
export interface CompiledKernel {
  readonly kernel: AnyKernel;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  /** Binding names in declaration order, without the uniform. */
  readonly names: readonly string[];
  /** Index of the uniform binding, or -1. */
  readonly uniformIndex: number;
  /** Distinguishes variants in bind-group keys. */
  readonly id: number;
}

/** What the cache needs of its device. */
export interface KernelCacheHost {
  readonly gpuDevice: GPUDevice;
  readonly limits: DeviceLimits;
  readonly counters: DeviceCounters;
  /** Runs a creation inside error scopes; failures surface when the device settles. */
  guard<T>(what: string, create: () => T): T;
}

const MAX_BIND_GROUPS = 16_384;

interface BindGroupEntry {
  readonly group: GPUBindGroup;
  /** The keys of each of its buffers, this entry's among them; not the buffers, see the cache. */
  readonly keySets: readonly Set<string>[];
}

/**
 * Pipelines and bind groups of one device, created once and found again by value.
 *
 * Bind groups are dropped with a buffer of ours, and the oldest above a fixed number. Nobody says
 * when a foreign buffer goes, so the cache keeps no reference to buffers.
 */
export class KernelCache {
  readonly #host: KernelCacheHost;
  readonly #pipelines = new Map<AnyKernel, Map<string, CompiledKernel>>();
  readonly #bindGroups = new Map<string, BindGroupEntry>();
  #keysByBuffer = new WeakMap<GPUBuffer, Set<string>>();
  readonly #bufferIds = new WeakMap<GPUBuffer, number>();
  #nextId = 1;

  constructor(host: KernelCacheHost) {
    this.#host = host;
  }

  /** The compiled variant; compiles it on first use. */
  compiled(kernel: AnyKernel, params: unknown, writable: boolean): CompiledKernel {
    let variants = this.#pipelines.get(kernel);
    if (variants === undefined) this.#pipelines.set(kernel, (variants = new Map()));
    const key = `${writable ? 'w' : 'r'}${JSON.stringify(params)}`;
    let entry = variants.get(key);
    if (entry === undefined) {
      entry = this.#compile(kernel, params, writable);
      variants.set(key, entry);
    }
    return entry;
  }

  #compile(kernel: AnyKernel, params: unknown, writable: boolean): CompiledKernel {
    const { gpuDevice, counters, limits } = this.#host;
    const { reads, writes } = orderedBindings(kernel);
    if (reads.length + writes.length > limits.maxStorageBuffersPerShaderStage) {
      fail(
        'unsupported',
        `kernel '${kernel.name}' has ${reads.length + writes.length} storage bindings, the ` +
          `device allows ${limits.maxStorageBuffersPerShaderStage}`,
        { kernel: kernel.name, limit: limits.maxStorageBuffersPerShaderStage },
      );
    }
    const hasUniforms = Object.keys(kernel.uniforms).length > 0;
    const uniformIndex = hasUniforms ? reads.length : -1;
    const readOnly: GPUBufferBindingType = writable ? 'storage' : 'read-only-storage';
    const types: GPUBufferBindingLayout[] = [
      ...reads.map(() => ({ type: readOnly })),
      ...(hasUniforms ? [{ type: 'uniform' as const, hasDynamicOffset: true }] : []),
      ...writes.map(() => ({ type: 'storage' as const })),
    ];
    const COMPUTE_STAGE = 4;
    const entries = types.map((buffer, binding) => ({
      binding,
      visibility: COMPUTE_STAGE,
      buffer,
    }));
    // The parameter record is known to fit: it came in beside its own kernel in Batch.dispatch.
    const code = kernelSource(kernel, params as never, writable);
    counters.pipelinesCreated += 1;
    return this.#host.guard(`kernel '${kernel.name}'`, () => {
      const layout = gpuDevice.createBindGroupLayout({ label: kernel.name, entries });
      const pipeline = gpuDevice.createComputePipeline({
        label: kernel.name,
        layout: gpuDevice.createPipelineLayout({ bindGroupLayouts: [layout] }),
        compute: {
          module: gpuDevice.createShaderModule({ label: kernel.name, code }),
          entryPoint: 'main',
        },
      });
      const names = [...reads, ...writes];
      return { kernel, pipeline, layout, names, uniformIndex, id: this.#nextId++ };
    });
  }

  /** The bind group of a variant over `ranges` (in the order of `names`) and a uniform buffer. */
  bindGroup(
    compiled: CompiledKernel,
    ranges: readonly BufferRange[],
    uniformBuffer: GPUBuffer,
  ): GPUBindGroup {
    let key = `${compiled.id}`;
    for (const range of ranges) {
      key += `|${this.#bufferId(range.buffer)}:${range.offsetBytes}:${range.sizeBytes}`;
    }
    const found = this.#bindGroups.get(key);
    if (found !== undefined) return found.group;
    const group = this.#createBindGroup(compiled, ranges, uniformBuffer);
    if (this.#bindGroups.size >= MAX_BIND_GROUPS) {
      const oldest = this.#bindGroups.keys().next();
      if (!oldest.done) this.#drop(oldest.value);
    }
    const keySets = ranges.map((range) => this.#keysOf(range.buffer).add(key));
    this.#bindGroups.set(key, { group, keySets });
    return group;
  }

  #keysOf(buffer: GPUBuffer): Set<string> {
    let keys = this.#keysByBuffer.get(buffer);
    if (keys === undefined) this.#keysByBuffer.set(buffer, (keys = new Set()));
    return keys;
  }

  #drop(key: string): void {
    for (const keys of this.#bindGroups.get(key)?.keySets ?? []) keys.delete(key);
    this.#bindGroups.delete(key);
  }

  #createBindGroup(
    compiled: CompiledKernel,
    ranges: readonly BufferRange[],
    uniformBuffer: GPUBuffer,
  ): GPUBindGroup {
    const { gpuDevice, counters } = this.#host;
    const entries: GPUBindGroupEntry[] = [];
    const uniform: GPUBufferBinding = {
      buffer: uniformBuffer,
      size: uniformBytes(compiled.kernel.uniforms),
    };
    ranges.forEach((range, index) => {
      if (index === compiled.uniformIndex) {
        entries.push({ binding: entries.length, resource: uniform });
      }
      entries.push({
        binding: entries.length,
        resource: { buffer: range.buffer, offset: range.offsetBytes, size: range.sizeBytes },
      });
    });
    if (compiled.uniformIndex === ranges.length) {
      entries.push({ binding: entries.length, resource: uniform });
    }
    counters.bindGroupsCreated += 1;
    const label = compiled.kernel.name;
    return this.#host.guard(`bind group of '${label}'`, () =>
      gpuDevice.createBindGroup({ label, layout: compiled.layout, entries }),
    );
  }

  #bufferId(buffer: GPUBuffer): number {
    let id = this.#bufferIds.get(buffer);
    if (id === undefined) this.#bufferIds.set(buffer, (id = this.#nextId++));
    return id;
  }

  /** Drops the bind groups that name a buffer which is being destroyed. */
  forget(buffer: GPUBuffer): void {
    for (const key of this.#keysByBuffer.get(buffer) ?? []) this.#drop(key);
    this.#keysByBuffer.delete(buffer);
  }

  /** Drops everything. */
  clear(): void {
    this.#pipelines.clear();
    this.#bindGroups.clear();
    this.#keysByBuffer = new WeakMap();
  }

  /** Checks that buffers list live bind groups only. @throws VramError `invariant`. */
  check(): void {
    const sets = new Set<Set<string>>();
    for (const [key, { keySets }] of this.#bindGroups) {
      for (const keys of keySets) {
        assertInvariant(keys.has(key), `a buffer of bind group ${key} does not list it`);
        sets.add(keys);
      }
    }
    for (const keys of sets) {
      for (const key of keys) {
        assertInvariant(this.#bindGroups.has(key), `bind group ${key} is listed and gone`);
      }
    }
  }
}
