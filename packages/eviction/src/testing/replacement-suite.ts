/**
 * The conformance suite of replacement policies: what every {@link Replacement} must do, whatever
 * it prefers.
 *
 * The suite depends on no test library: the caller hands in `describe`, `it` and `expect`, and
 * those of vitest and jest fit. Operations are seeded, so that a failure repeats.
 */
import { isVramError, Residency, type ResidentSize } from '@vramkit/core';
import { seededRandom, type TestApi } from '@vramkit/core/testing';
import type { Replacement } from '../replacement/held-slots.js';

const SIZE: ResidentSize = { sizeBytes: 4096, reloadCost: 4096 };

/** Makes the policy under test, empty; for ids of integers in [0, 4096). */
export type ReplacementFactory = () => Replacement<number>;

/**
 * Declares the suite `name` for one policy.
 *
 * @example
 * ```ts
 * import { describe, expect, it } from 'vitest';
 * import { lru } from '@vramkit/eviction';
 * import { describeReplacementPolicy } from '@vramkit/eviction/testing';
 * describeReplacementPolicy('lru', () => lru(), { describe, expect, it });
 * ```
 */
export function describeReplacementPolicy(
  name: string,
  factory: ReplacementFactory,
  api: TestApi,
): void {
  api.describe(name, () => describeRules(factory, api));
}

function describeRules(factory: ReplacementFactory, api: TestApi): void {
  const same = (what: string, actual: unknown, expected: unknown): void =>
    api.expect({ [what]: actual }).toEqual({ [what]: expected });
  api.it('holds what it is told of, and names no victim where there is none', () => {
    const policy = factory();
    same('victim of nothing', policy.chooseVictim(always), undefined);
    for (let id = 0; id < 100; id++) policy.inserted(id, SIZE);
    for (let id = 0; id < 100; id += 2) policy.removed(id, 'explicit');
    same('size', policy.size, 50);
    same('victim of no choice', policy.chooseVictim(never), undefined);
    for (let id = 1; id < 100; id += 2) {
      same(
        `the only one that may go`,
        policy.chooseVictim((each) => each === id),
        id,
      );
    }
    policy.check();
  });

  api.it('naming a victim removes nothing and is repeated until the victim is gone', () => {
    const policy = factory();
    for (let id = 0; id < 20; id++) policy.inserted(id, SIZE);
    for (let id = 0; id < 20; id += 3) policy.touched(id);
    const victim = policy.chooseVictim(always) ?? -1;
    same('again', policy.chooseVictim(always), victim);
    same('size', policy.size, 20);
    policy.removed(victim, 'capacity');
    same('gone', policy.chooseVictim(always) === victim, false);
    policy.inserted(victim, SIZE);
    policy.check();
  });

  api.it('refuses what is inserted twice, or touched or removed without being held', () => {
    const policy = factory();
    for (const id of [1, 2, 3, 4]) policy.inserted(id, SIZE);
    const gone = policy.chooseVictim(always) ?? -1;
    policy.removed(gone, 'capacity');
    const held = policy.chooseVictim(always) ?? -1;
    const attempts = [
      () => policy.inserted(held, SIZE),
      () => policy.touched(gone),
      () => policy.removed(gone, 'capacity'),
      () => policy.touched(77),
      () => policy.removed(77, 'explicit'),
    ];
    attempts.forEach((attempt, index) =>
      same(`attempt ${index}`, codeOf(attempt), 'invalid-argument'),
    );
    same('size', policy.size, 3);
    same('victim', policy.chooseVictim(always), held);
    policy.check();
  });

  api.it('over random operations: names what is held and may go, whenever something may', () => {
    for (const seed of [1, 2, 3, 4, 5, 6]) walk(factory(), seed, same);
  });

  api.it('two of a kind decide alike', () => {
    const choices = [factory(), factory()].map((policy) => {
      const random = seededRandom(9);
      const held = new Set<number>();
      return Array.from({ length: 500 }, () => access(policy, held, random.integer(0, 99), 30));
    });
    same('choices', choices[1], choices[0]);
  });

  api.it('passes pinned copies in constant time, amortised', () => {
    for (const isHot of [false, true]) {
      const policy = factory();
      const pinned = 500;
      let questions = 0;
      const held = new Set<number>();
      const mayEvict = (id: number): boolean => {
        questions += 1;
        return id >= pinned;
      };
      for (let id = 0; id < 2 * pinned; id++) access(policy, held, id, 2 * pinned);
      for (let id = 0; id < 3 * pinned && isHot; id++) policy.touched(id % pinned);
      const random = seededRandom(3);
      for (let i = 0; i < 4000; i++) {
        access(policy, held, pinned + random.integer(0, 3000), 2 * pinned, mayEvict);
      }
      same(`questions ${questions} are at most 3 per access`, questions <= 12_000, true);
      policy.check();
    }
  });

  api.it('serves a tier of Residency: what it names can be dropped', () => {
    const policy = factory();
    const tier = { name: 'device', budgetBytes: 10 * SIZE.sizeBytes, policy } as const;
    const residency = new Residency<number, 'device'>({ tiers: [tier] });
    for (let id = 0; id < 60; id++) {
      const victims = residency.planRoom('device', SIZE.sizeBytes);
      for (const victim of victims ?? []) residency.drop(victim.id, 'device', 'capacity');
      residency.tryAdd(id, { sizeBytes: SIZE.sizeBytes, tier: 'device', recreatable: true });
      if (id % 3 === 0) residency.pin(id, 'device');
      if (id % 3 === 0 && id > 6) residency.unpin(id - 6, 'device');
    }
    residency.check();
    policy.check();
    same('size', policy.size, residency.usage('device').residentCount);
    const plan = residency.planRoom('device', residency.usage('device').budgetBytes);
    same('all at once, of which some are pinned', plan, undefined);
  });
}

type Same = (what: string, actual: unknown, expected: unknown) => void;

const always = (): boolean => true;
const never = (): boolean => false;

/** Reads an id through a cache of `capacity` copies; returns the victim, if one went. */
function access(
  policy: Replacement<number>,
  held: Set<number>,
  id: number,
  capacity: number,
  mayEvict: (id: number) => boolean = always,
): number | undefined {
  if (held.has(id)) {
    policy.touched(id);
    return undefined;
  }
  const victim = held.size < capacity ? undefined : policy.chooseVictim(mayEvict);
  if (victim !== undefined) {
    policy.removed(victim, 'capacity');
    held.delete(victim);
  }
  policy.inserted(id, SIZE);
  held.add(id);
  return victim;
}

function walk(policy: Replacement<number>, seed: number, same: Same): void {
  const random = seededRandom(seed);
  const held = new Set<number>();
  for (let step = 0; step < 600; step++) {
    const id = random.integer(0, 39);
    const kind = random.integer(0, 9);
    if (kind < 6) access(policy, held, id, 20);
    else if (held.has(id) && kind === 6) {
      policy.removed(id, 'explicit');
      held.delete(id);
    } else {
      const bits = random.uint32();
      const mayEvict = (each: number): boolean => ((bits >>> (each % 32)) & 1) === 1;
      const victim = policy.chooseVictim(mayEvict);
      const isRight =
        victim === undefined ? ![...held].some(mayEvict) : held.has(victim) && mayEvict(victim);
      same(`seed ${seed}, step ${step}: ${victim}`, isRight, true);
    }
    same('size', policy.size, held.size);
    if (step % 10 === 0) policy.check();
  }
}

function codeOf(call: () => void): unknown {
  try {
    call();
  } catch (error) {
    return isVramError(error) ? error.code : error;
  }
  return 'returned';
}
