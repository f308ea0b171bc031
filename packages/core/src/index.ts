export * from './assert.js';
export * from './dtype.js';
export * from './errors.js';
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
