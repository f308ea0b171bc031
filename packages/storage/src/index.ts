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
export { memoryStore, type MemoryStoreOptions } from './adapters/memory.js';
export {
  LUSTRE_TYPE,
  posixStore,
  type PosixStore,
  type PosixStoreOptions,
} from './adapters/posix.js';
export { readBlob, type ReadBlobOptions } from './read-blob.js';
