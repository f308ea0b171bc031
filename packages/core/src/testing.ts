/**
 * What tests of vramkit and of code above it share: the conformance suite of memory resources, a
 * resource without a GPU, a wrapper that fails on purpose, a plain replacement policy, seeded data,
 * and array comparison.
 *
 * A subpath of its own (`@vramkit/core/testing`), never imported by shipped code.
 */
export { compareArrays, type CompareOptions, type Comparison } from './testing/compare-arrays.js';
export { faultyResource, type FaultyResourceOptions } from './testing/faulty-resource.js';
export { readWords, writeWords } from './testing/gpu-memory.js';
export {
  hostResource,
  type HostResource,
  type HostResourceOptions,
} from './testing/host-resource.js';
export { LruPolicy } from './testing/lru-policy.js';
export {
  describeResource,
  type ResourceSuiteOptions,
  type ResourceUnderTest,
} from './testing/resource-suite.js';
export { resourceStacks, type ResourceStack } from './testing/resource-stacks.js';
export type { TestApi } from './testing/rule-test.js';
export { seededRandom, type SeededRandom } from './testing/seeded-random.js';
