/**
 * Device, memory resources, tensors, kernels, transfers and errors: what every other package stands
 * on.
 */
export { assertArgument, assertInvariant, checkInteger, fail, throwIfAborted } from './assert.js';
export { Batch, type DispatchRequest } from './batch.js';
export { BufferUsage, subrange, type BufferRange } from './buffer.js';
export { countersSince, type DeviceCounters } from './counters.js';
export { createGpu } from './dawn.js';
export {
  adoptDevice,
  openDevice,
  VramDevice,
  type AdapterDescription,
  type DeviceOptions,
  type OpenDeviceOptions,
} from './device.js';
export {
  bf16ToF32,
  dtypeBits,
  dtypeBytes,
  f16ArrayToF32,
  f16ToF32,
  f32ToBf16,
  f32ToF16,
  isDType,
  type DType,
  type PackedDType,
} from './dtype.js';
export {
  isVramError,
  VramError,
  type VramErrorCode,
  type VramErrorContext,
  type VramErrorOptions,
} from './errors.js';
export { spawnWorker, type HostWorker, type SpawnWorker } from './host-worker.js';
export {
  defineKernel,
  kernelSource,
  uniformBytes,
  type BindingDefinition,
  type Kernel,
  type KernelDefinition,
  type UniformType,
} from './kernel.js';
export { foldGrid, type DeviceLimits } from './limits.js';
export { ReadbackRing, type ReadbackHost, type ReadOptions } from './readback.js';
export { contiguousStrides, elementCount, sameShape, type Shape } from './shape.js';
export {
  createTensor,
  Tensor,
  tensorFromBuffer,
  type HostArray,
  type TensorOptions,
} from './tensor.js';
export {
  Uploader,
  writeRange,
  type HostData,
  type UploaderOptions,
  type UploadMethod,
  type UploadOptions,
} from './upload.js';
export {
  wgslLinearWorkgroup,
  wgslPack4,
  wgslStorage4,
  wgslUnpack4,
  type FloatDType,
} from './wgsl.js';
export {
  allocate,
  DEFAULT_BUFFER_USAGE,
  MEMORY_KINDS,
  paddedBytes,
  type Allocation,
  type AllocationRequest,
  type MemoryKind,
  type MemoryResource,
  type MemoryStats,
} from './resource.js';
export {
  OffsetAllocator,
  type OffsetAllocatorOptions,
  type RangeHandle,
} from './offset-allocator.js';
export { arenaResource, type ArenaResource, type ArenaResourceOptions } from './resources/arena.js';
export {
  countedResource,
  type AllocationCounts,
  type CountedResource,
} from './resources/counted.js';
export {
  deviceResource,
  type DeviceResource,
  type DeviceResourceOptions,
} from './resources/device.js';
export {
  limitedResource,
  type LimitedResource,
  type LimitedResourceOptions,
  type PressureListener,
} from './resources/limited.js';
export {
  pooledResource,
  sizeClassBytes,
  type PooledResource,
  type PooledResourceOptions,
} from './resources/pooled.js';
export { tracedResource, type TracedResourceOptions } from './resources/traced.js';
export type {
  Clock,
  MemoryEvent,
  PhaseEvent,
  TraceEvent,
  TraceSink,
  TransferEvent,
} from './tracing.js';
export {
  Residency,
  type Move,
  type ResidencyOptions,
  type ResidentId,
  type ResidentOptions,
  type TierOptions,
  type Victim,
} from './residency.js';
export type { ReplacementPolicy, ResidentSize } from './replacement.js';
export type { CopyState, TierUsage } from './tier-ledger.js';
