/** Blob stores: the contract, the adapters without a driver of their own, layers over any store. */
export type {
  BlobBody,
  BlobInfo,
  BlobStore,
  CallOptions,
  Durability,
  GetOptions,
  ListOptions,
  OwnedBlobStore,
  PutCondition,
  PutOptions,
  StoreCapabilities,
} from './blob-store.js';
export { checkKey, compareKeys, MAX_KEY_BYTES } from './blob-key.js';
export {
  judgeStore,
  recommendStore,
  WORKLOADS,
  type AdapterName,
  type StoreAdvice,
  type StoreSystem,
  type StoreVerdict,
  type StoreWorkload,
  type WorkloadKind,
} from './advice.js';
export { memoryStore, type MemoryStoreOptions } from './adapters/memory.js';
export { LUSTRE_TYPE, type LustreComponent, type LustreLayout } from './adapters/lustre-layout.js';
export { posixStore, type PosixStore, type PosixStoreOptions } from './adapters/posix.js';
export { readBlob, type ReadBlobOptions } from './read-blob.js';
export { cachedStore, type CachedStore, type CacheOptions } from './layers/cached.js';
export { chaoticStore, type ChaosOptions } from './layers/chaotic.js';
export { checksummedStore, FRAME_BYTES } from './layers/checksummed.js';
export { limitedStore, type StoreLimitOptions } from './layers/limited.js';
export { retriedStore, type RetryOptions } from './layers/retried.js';
export { stripedStore, sweepStripes, type StripeOptions } from './layers/striped.js';
export { timedStore, type TimeoutOptions } from './layers/timed.js';
export { tracedStore, type StoreTraceOptions } from './layers/traced.js';
export {
  Checkpoints,
  type CheckpointsOptions,
  type ReadTensorOptions,
  type SaveOptions,
} from './checkpoint.js';
export { readToDevice, type ReadToDeviceOptions } from './checkpoint-device.js';
export type {
  CheckpointManifest,
  CheckpointTensor,
  StoredShard,
  StoredTensor,
} from './checkpoint-format.js';
export {
  KvTier,
  prefixNames,
  type KvIdentity,
  type KvTierBudget,
  type KvTierOptions,
} from './kv-tier.js';
