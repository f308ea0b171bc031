/**
 * The rules that every `BlobStore` keeps, as a suite that runs against any of them.
 *
 * An adapter's test is a call of {@link describeStore} against the real service. A capability that
 * is declared is exercised; one that is not must be refused. The suite depends on no test library:
 * the caller hands in `describe`, `it` and `expect`. The list of cases follows the behaviour tests
 * of Apache OpenDAL (2026) where they apply.
 */
import type { TestApi } from '@vramkit/core/testing';
import {
  registerBytes,
  registerFailedPuts,
  registerGiant,
  registerMemory,
  registerLifetime,
  registerRanges,
} from './store-rules.js';
import { registerListing, registerNames } from './store-name-rules.js';
import { registerCreate, registerReaders, registerSwap } from './store-race-rules.js';
import { storeWalk } from './store-walk.js';
import { StoreTest, type StoreRule, type StoreUnderTest } from './store-test.js';

/** Options of {@link describeStore}. */
export interface StoreSuiteOptions {
  /** Keys of the listing rule; above 1,000 where a service gives pages of so many. Default: 150. */
  readonly pageKeys?: number;
  /** Rounds of the create race. Default: 24. */
  readonly raceRounds?: number;
  /** Seeds of the random walks. Default: 1, 2. */
  readonly seeds?: readonly number[];
  /** Operations of a random walk. Default: 120. */
  readonly steps?: number;
  /** Bytes of one giant blob, above 4 GiB; 0 for none. Default: 0. */
  readonly giantBytes?: number;
}

/** Registers the suite `name`; `factory` is called once per test. */
export function describeStore(
  name: string,
  factory: () => StoreUnderTest | Promise<StoreUnderTest>,
  api: TestApi,
  options: StoreSuiteOptions = {},
): void {
  const { pageKeys = 150, raceRounds = 24, seeds = [1, 2], steps = 120, giantBytes = 0 } = options;
  const rule: StoreRule = (title, body) => {
    api.it(title, async () => {
      const subject = await factory();
      try {
        await body(new StoreTest(api, subject));
      } finally {
        await subject.close?.();
      }
    });
  };
  api.describe(name, () => {
    registerBytes(rule);
    registerRanges(rule);
    registerMemory(rule);
    registerLifetime(rule);
    registerFailedPuts(rule);
    registerNames(rule);
    registerListing(rule, pageKeys);
    registerCreate(rule, { rounds: raceRounds, writers: 8 });
    registerSwap(rule);
    registerReaders(rule);
    if (giantBytes > 0) registerGiant(rule, giantBytes);
    for (const seed of seeds) {
      rule(`agrees with a map over a random walk (seed ${seed})`, (test) =>
        storeWalk(test, seed, steps),
      );
    }
  });
}
