/** K/V blocks shared by processes: the index in a database, and the blocks over it. */
export { PrefixIndex, type IndexUsage, type SqlPool, type StoredBlock } from './prefix-index.js';
export { SharedBlocks, type SharedBlocksOptions } from './shared-blocks.js';
