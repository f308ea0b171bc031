/** The residency machine over random operations, beside a model that is plain data. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isVramError } from './errors.js';
import { Residency, type Move } from './residency.js';
import { LruPolicy } from './testing.js';

const TIERS = ['device', 'host', 'storage'] as const;
type Tier = (typeof TIERS)[number];
type Id = number | string;

function setup(device: number, host: number) {
  const policies = {
    device: new LruPolicy<Id>(),
    host: new LruPolicy<Id>(),
    storage: new LruPolicy<Id>(),
  };
  const residency = new Residency<Id, Tier>({
    tiers: [
      { name: 'device', budgetBytes: device, policy: policies.device },
      { name: 'host', budgetBytes: host, policy: policies.host },
      { name: 'storage', budgetBytes: Infinity, policy: policies.storage },
    ],
  });
  return { residency, policies };
}

/** One object as the model sees it. */
interface ModelObject {
  readonly sizeBytes: number;
  readonly recreatable: boolean;
  readonly copies: Record<Tier, 'absent' | 'resident' | 'arriving'>;
  readonly pins: Record<Tier, number>;
}

const BUDGETS: Record<Tier, number> = { device: 50, host: 90, storage: Infinity };
const anyTier = fc.constantFrom(...TIERS);
const id = fc.nat(5);
const operation = fc.oneof(
  fc.record({
    op: fc.constant('add' as const),
    id,
    tier: anyTier,
    size: fc.nat(40),
    recreatable: fc.boolean(),
  }),
  fc.record({
    op: fc.constantFrom('remove' as const, 'evict' as const),
    id,
    tier: anyTier,
    size: fc.nat(60),
  }),
  fc.record({ op: fc.constantFrom('touch', 'pin', 'unpin', 'drop', 'changed'), id, tier: anyTier }),
  fc.record({
    op: fc.constant('move' as const),
    id,
    tier: anyTier,
    from: fc.option(anyTier, { nil: undefined }),
  }),
  fc.record({ op: fc.constant('complete' as const), index: fc.nat(), succeeds: fc.boolean() }),
);

/** The machine and the model, side by side. */
class Walk {
  readonly #setup = setup(BUDGETS.device, BUDGETS.host);
  readonly #objects = new Map<number, ModelObject>();
  readonly #moves: Move<Id, Tier>[] = [];

  /** Expects `call` to succeed exactly where the model says so. @returns Its result, if it did. */
  #attempt<T>(allowed: boolean, call: () => T): T | undefined {
    try {
      const result = call();
      expect(allowed, 'a call succeeded that the model forbids').toBe(true);
      return result;
    } catch (error) {
      if (!isVramError(error, 'invalid-argument')) throw error;
      expect(allowed, error.message).toBe(false);
      return undefined;
    }
  }

  #used(tier: Tier): number {
    const there = [...this.#objects.values()].filter(({ copies }) => copies[tier] !== 'absent');
    return there.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }

  #readers(objectId: number, tier: Tier): number {
    return this.#moves.filter((move) => move.id === objectId && move.from === tier).length;
  }

  #isHeld(objectId: number, tier: Tier): boolean {
    const object = this.#objects.get(objectId);
    if (object === undefined) return false;
    const held = object.pins[tier] + this.#readers(objectId, tier) > 0;
    return held || object.copies[tier] === 'arriving';
  }

  add(objectId: number, tier: Tier, sizeBytes: number, recreatable: boolean): void {
    const { residency } = this.#setup;
    const added = this.#attempt(!this.#objects.has(objectId), () =>
      residency.tryAdd(objectId, { sizeBytes, tier, recreatable }),
    );
    if (added === undefined) return;
    expect(added).toBe(this.#used(tier) + sizeBytes <= BUDGETS[tier]);
    if (!added) return;
    const copies = {
      device: 'absent',
      host: 'absent',
      storage: 'absent',
      [tier]: 'resident',
    } as const;
    const pins = { device: 0, host: 0, storage: 0 };
    this.#objects.set(objectId, { sizeBytes, recreatable, copies: { ...copies }, pins });
  }

  remove(objectId: number): void {
    const allowed =
      this.#objects.has(objectId) && !TIERS.some((tier) => this.#isHeld(objectId, tier));
    this.#attempt(allowed, () => this.#setup.residency.remove(objectId));
    if (allowed) this.#objects.delete(objectId);
  }

  single(op: string, objectId: number, tier: Tier): void {
    const { residency } = this.#setup;
    const object = this.#objects.get(objectId);
    const resident = object?.copies[tier] === 'resident';
    const others = TIERS.filter((other) => other !== tier);
    const isLast = !others.some((other) => object?.copies[other] === 'resident');
    if (op === 'touch') this.#attempt(resident, () => residency.touch(objectId, tier));
    if (op === 'pin') {
      this.#attempt(resident, () => residency.pin(objectId, tier));
      if (object && resident) object.pins[tier] += 1;
    }
    if (op === 'unpin') {
      const allowed = resident && (object?.pins[tier] ?? 0) > 0;
      this.#attempt(allowed, () => residency.unpin(objectId, tier));
      if (object && allowed) object.pins[tier] -= 1;
    }
    if (op === 'drop') {
      const mayGo = !this.#isHeld(objectId, tier) && (!isLast || object?.recreatable === true);
      this.#attempt(resident && mayGo, () => residency.drop(objectId, tier));
      if (object && resident && mayGo) object.copies[tier] = 'absent';
      if (resident && mayGo && isLast) this.#objects.delete(objectId);
    }
    if (op === 'changed') {
      const quiet = !others.some((other) => this.#isHeld(objectId, other));
      const allowed = resident && quiet && this.#readers(objectId, tier) === 0;
      this.#attempt(allowed, () => residency.changed(objectId, tier));
      if (object && allowed) for (const other of others) object.copies[other] = 'absent';
    }
  }

  move(objectId: number, to: Tier, from: Tier | undefined): void {
    const object = this.#objects.get(objectId);
    const source = from ?? TIERS.find((tier) => object?.copies[tier] === 'resident');
    const allowed =
      object?.copies[to] === 'absent' &&
      source !== undefined &&
      object.copies[source] === 'resident';
    const fits = this.#used(to) + (object?.sizeBytes ?? 0) <= BUDGETS[to];
    const move = this.#attempt(allowed, () =>
      this.#setup.residency.prepareMove(objectId, to, from),
    );
    expect(move !== undefined).toBe(allowed && fits);
    if (object === undefined || move === undefined) return;
    expect(move).toEqual({ id: objectId, from: source, to, sizeBytes: object.sizeBytes });
    object.copies[to] = 'arriving';
    this.#moves.push(move);
  }

  complete(index: number, succeeds: boolean): void {
    const [move] = this.#moves.splice(index % Math.max(1, this.#moves.length), 1);
    if (move === undefined) return;
    this.#setup.residency.complete(move, succeeds ? 'succeeded' : 'failed');
    const object = this.#objects.get(Number(move.id));
    if (object) object.copies[move.to] = succeeds ? 'resident' : 'absent';
  }

  /** Drops every planned victim that has another copy, and expects the room that was planned. */
  evict(tier: Tier, sizeBytes: number): void {
    const { residency, policies } = this.#setup;
    const victims = residency.planRoom(tier, sizeBytes);
    const mayGo = (objectId: number): boolean =>
      this.#objects.get(objectId)?.copies[tier] === 'resident' && !this.#isHeld(objectId, tier);
    const free = BUDGETS[tier] - this.#used(tier);
    const candidates = [...policies[tier].order].map(Number).filter(mayGo);
    const bytesOf = (objectId: number): number => this.#objects.get(objectId)?.sizeBytes ?? 0;
    const evictable = candidates.reduce((sum, objectId) => sum + bytesOf(objectId), 0);
    expect(victims === undefined).toBe(free + evictable < sizeBytes);
    if (victims === undefined) return;
    // The shortest prefix of the policy's order that makes the room.
    const wanted: number[] = [];
    for (let room = free; room < sizeBytes;) {
      const next = candidates.shift();
      if (next === undefined) throw new Error('the model runs out of victims');
      wanted.push(next);
      room += bytesOf(next);
    }
    expect(victims.map((victim) => victim.id)).toEqual(wanted);
    for (const victim of victims) {
      if (victim.isLastCopy) expect(() => residency.drop(victim.id, tier)).toThrow(/last copy/);
      else this.single('drop', Number(victim.id), tier);
    }
  }

  compare(): void {
    const { residency, policies } = this.#setup;
    residency.check();
    expect(residency.size).toBe(this.#objects.size);
    for (const tier of TIERS) {
      const resident = [...this.#objects].filter(([, { copies }]) => copies[tier] === 'resident');
      expect(new Set(policies[tier].order)).toEqual(
        new Set(resident.map(([objectId]) => objectId)),
      );
      const usage = residency.usage(tier);
      expect(usage.residentBytes + usage.incomingBytes).toBe(this.#used(tier));
      expect(usage.residentCount).toBe(resident.length);
    }
    for (const [objectId, { copies }] of this.#objects) {
      for (const tier of TIERS) {
        const state = residency.state(objectId, tier);
        const isArriving = state === 'loading' || state === 'storing';
        expect(isArriving ? 'arriving' : state).toBe(copies[tier]);
      }
    }
  }
}

describe('Residency beside a model', () => {
  it('allows, refuses and counts the same over random operations', () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 80 }), (operations) => {
        const walk = new Walk();
        for (const step of operations) {
          if (step.op === 'add') walk.add(step.id, step.tier, step.size, step.recreatable);
          else if (step.op === 'remove') walk.remove(step.id);
          else if (step.op === 'evict') walk.evict(step.tier, step.size);
          else if (step.op === 'move') walk.move(step.id, step.tier, step.from);
          else if (step.op === 'complete') walk.complete(step.index, step.succeeds);
          else walk.single(step.op, step.id, step.tier);
          walk.compare();
        }
      }),
      { numRuns: 500 },
    );
  });
});
