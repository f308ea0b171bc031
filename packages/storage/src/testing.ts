/**
 * The conformance suite of blob stores, for adapters and layers of your own.
 *
 * A subpath of its own (`@vramkit/storage/testing`), never imported by shipped code.
 */
export { describeStore, type StoreSuiteOptions } from './testing/store-suite.js';
export { testBytes, type StoreUnderTest } from './testing/store-test.js';
