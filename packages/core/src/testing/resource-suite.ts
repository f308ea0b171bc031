/**
 * The rules that every `MemoryResource` keeps, as a suite that runs against any of them.
 *
 * An implementation's test is a call of {@link describeResource} and its own rules. The suite
 * depends on no test library: the caller hands in `describe`, `it` and `expect`; those of vitest
 * and jest fit. Random walks are seeded, and their names carry the seed.
 */
import type { MemoryResource } from '../resource.js';
import { checkDistinctMemory } from './gpu-memory.js';
import {
  registerDisposal,
  registerExhaustion,
  registerLending,
  registerMisuse,
} from './resource-rules.js';
import { randomWalk } from './resource-walk.js';
import { RuleTest, type Rule, type TestApi } from './rule-test.js';

/** A fresh resource for one test. */
export interface ResourceUnderTest {
  readonly resource: MemoryResource;
  /** What the resource takes memory from; must have nothing live once the resource is disposed. */
  readonly upstream?: MemoryResource;
  /** The device of the buffers; with it the suite also writes and reads the memory. */
  readonly gpuDevice?: GPUDevice;
  /** Runs after the test, whatever came of it. Default: nothing. */
  readonly close?: () => void | Promise<void>;
}

/** Options of {@link describeResource}. */
export interface ResourceSuiteOptions {
  /**
   * Bytes that the resource never holds more of, in [64 KiB, 16 MiB], so that the suite can exhaust
   * it; `Infinity` for a resource without a limit.
   */
  readonly capacityBytes: number;
  /** Operations of a random walk. Default: 300. */
  readonly steps?: number;
  /** Seeds of the random walks. Default: 1, 2, 3. */
  readonly seeds?: readonly number[];
}

/** Registers the suite `name`; `factory` is called once per test. */
export function describeResource(
  name: string,
  factory: () => ResourceUnderTest | Promise<ResourceUnderTest>,
  api: TestApi,
  options: ResourceSuiteOptions,
): void {
  const { capacityBytes, steps = 300, seeds = [1, 2, 3] } = options;
  const rule: Rule = (title, body) => {
    api.it(title, async () => {
      const subject = await factory();
      try {
        await body(new RuleTest(api, subject));
      } finally {
        await subject.close?.();
      }
    });
  };
  api.describe(name, () => {
    registerLending(rule);
    registerMisuse(rule);
    registerDisposal(rule);
    registerExhaustion(rule, capacityBytes);
    for (const seed of seeds) {
      rule(`agrees with a naive model over a random walk (seed ${seed})`, (test) =>
        randomWalk(test, { capacityBytes, steps, seed }),
      );
    }
    rule('gives ranges that are memory of their own, where there is a device', async (test) => {
      const { gpuDevice } = test.subject;
      if (gpuDevice !== undefined) await checkDistinctMemory(test.resource, gpuDevice);
    });
  });
}
