/** The residency machine: its rules one by one, and random walks beside a model that is plain data. */
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isVramError } from './errors.js';
import type { ReplacementPolicy } from './replacement.js';
import { Residency, type Move } from './residency.js';

const TIERS = ['device', 'host', 'storage'] as const;
type Tier = (typeof TIERS)[number];
type Id = number | string;

/** Least recently used, first found allowed; keeps a log of what it was told. */
class LruPolicy implements ReplacementPolicy<Id> {
  readonly order = new Set<Id>();
  readonly log: string[] = [];
  inserted(id: Id): void {
    if (this.order.has(id)) throw new Error(`${id} inserted twice`);
    this.order.add(id);
  }
  touched(id: Id): void {
    if (!this.order.delete(id)) throw new Error(`${id} touched, not held`);
    this.order.add(id);
  }
  removed(id: Id, reason: string): void {
    if (!this.order.delete(id)) throw new Error(`${id} removed, not held`);
    this.log.push(`${id} ${reason}`);
  }
  chooseVictim(mayEvict: (id: Id) => boolean): Id | undefined {
    return [...this.order].find(mayEvict);
  }
}

function setup(device = 100, host = 200) {
  const policies = { device: new LruPolicy(), host: new LruPolicy(), storage: new LruPolicy() };
  const residency = new Residency<Id, Tier>({
    tiers: [
      { name: 'device', budgetBytes: device, policy: policies.device },
      { name: 'host', budgetBytes: host, policy: policies.host },
      { name: 'storage', budgetBytes: Infinity, policy: policies.storage },
    ],
  });
  return { residency, policies };
}

function must<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('there was room, and the move was refused');
  return value;
}

const states = (residency: Residency<Id, Tier>, id: Id): string[] =>
  TIERS.map((tier) => residency.state(id, tier));

describe('Residency', () => {
  it('loads from farther and stores from nearer, and both end resident', () => {
    const { residency } = setup();
    expect(residency.tryAdd('expert', { sizeBytes: 60, tier: 'host' })).toBe(true);
    const load = must(residency.prepareMove('expert', 'device'));
    const store = must(residency.prepareMove('expert', 'storage'));
    expect(states(residency, 'expert')).toEqual(['loading', 'resident', 'storing']);
    expect([load.from, store.from]).toEqual(['host', 'host']);
    expect(residency.usage('device')).toMatchObject({ residentBytes: 0, incomingBytes: 60 });
    expect(residency.usage('host').pinnedBytes).toBe(60);
    residency.complete(load, 'succeeded');
    expect(residency.usage('host').pinnedBytes).toBe(60);
    residency.complete(store, 'succeeded');
    expect(residency.usage('host').pinnedBytes).toBe(0);
    expect(states(residency, 'expert')).toEqual(['resident', 'resident', 'resident']);
    expect(residency.nearest('expert')).toBe('device');
    residency.check();
  });

  it('leaves no trace of a failed move', () => {
    const { residency, policies } = setup();
    residency.tryAdd(1, { sizeBytes: 60, tier: 'storage' });
    const before = TIERS.map((tier) => residency.usage(tier));
    residency.complete(must(residency.prepareMove(1, 'device')), 'failed');
    expect(TIERS.map((tier) => residency.usage(tier))).toEqual(before);
    expect(states(residency, 1)).toEqual(['absent', 'absent', 'resident']);
    expect(policies.device.log).toEqual([]);
    residency.check();
  });

  it('refuses by value where there is no room, and counts what is on its way', () => {
    const { residency } = setup();
    for (const id of [1, 2]) residency.tryAdd(id, { sizeBytes: 60, tier: 'storage' });
    must(residency.prepareMove(1, 'device'));
    expect(residency.prepareMove(2, 'device')).toBeUndefined();
    expect(residency.tryAdd(3, { sizeBytes: 41, tier: 'device' })).toBe(false);
    expect(residency.has(3)).toBe(false);
    expect(residency.usage('storage').pinnedBytes).toBe(60);
    expect(residency.tryAdd(3, { sizeBytes: 40, tier: 'device' })).toBe(true);
    residency.check();
  });

  it('names victims in the order of the policy, and says which hold a last copy', () => {
    const { residency } = setup();
    residency.tryAdd('only here', { sizeBytes: 30, tier: 'device' });
    residency.tryAdd('recreatable', { sizeBytes: 30, tier: 'device', recreatable: true });
    residency.tryAdd('also on host', { sizeBytes: 30, tier: 'device' });
    residency.complete(must(residency.prepareMove('also on host', 'host')), 'succeeded');
    expect(residency.planRoom('device', 10)).toEqual([]);
    residency.touch('only here', 'device');
    expect(residency.planRoom('device', 100)).toEqual([
      { id: 'recreatable', sizeBytes: 30, isLastCopy: false },
      { id: 'also on host', sizeBytes: 30, isLastCopy: false },
      { id: 'only here', sizeBytes: 30, isLastCopy: true },
    ]);
    const keep = (id: Id): boolean => id !== 'recreatable';
    expect(residency.planRoom('device', 40, keep)?.map(({ id }) => id)).toEqual(['also on host']);
    expect(residency.planRoom('device', 100, keep)).toBeUndefined();
    residency.pin('also on host', 'device');
    expect(residency.planRoom('device', 100)).toBeUndefined();
    expect(residency.planRoom('device', 40)?.map(({ id }) => id)).toEqual(['recreatable']);
    expect(residency.usage('device').residentCount).toBe(3);
    residency.check();
  });

  it('never drops the last copy of what cannot be made anew, and forgets what can', () => {
    const { residency, policies } = setup();
    residency.tryAdd('weights', { sizeBytes: 10, tier: 'device' });
    residency.tryAdd('block', { sizeBytes: 10, tier: 'device', recreatable: true });
    expect(() => residency.drop('weights', 'device')).toThrow(/device has the last copy/);
    residency.drop('block', 'device', 'capacity');
    expect(residency.has('block')).toBe(false);
    expect(residency.nearest('block')).toBeUndefined();
    expect(policies.device.log).toEqual(['block capacity']);
    residency.complete(must(residency.prepareMove('weights', 'host')), 'succeeded');
    residency.drop('weights', 'device');
    expect(states(residency, 'weights')).toEqual(['absent', 'resident', 'absent']);
    expect(() => residency.drop('weights', 'host')).toThrow(/last copy/);
    residency.remove('weights');
    expect([residency.size, residency.usage('host').residentBytes]).toEqual([0, 0]);
    residency.check();
  });

  it('keeps what is pinned or read by a move', () => {
    const { residency } = setup();
    residency.tryAdd(1, { sizeBytes: 10, tier: 'host', recreatable: true });
    residency.pin(1, 'host');
    residency.pin(1, 'host');
    expect(residency.usage('host').pinnedBytes).toBe(10);
    residency.unpin(1, 'host');
    expect(() => residency.drop(1, 'host')).toThrow(/pinned in host/);
    residency.unpin(1, 'host');
    expect(() => residency.unpin(1, 'host')).toThrow(/not pinned in host/);
    const move = must(residency.prepareMove(1, 'device'));
    expect(() => residency.drop(1, 'host')).toThrow(/pinned in host/);
    expect(() => residency.remove(1)).toThrow(/pinned or moving in device/);
    expect(() => residency.changed(1, 'host')).toThrow(/being copied from host/);
    expect(() => residency.pin(1, 'device')).toThrow(/'1' is loading in device/);
    residency.complete(move, 'succeeded');
    residency.drop(1, 'host');
    residency.check();
  });

  it('drops stale copies after a change in place, unless one is in use', () => {
    const { residency, policies } = setup();
    residency.tryAdd(1, { sizeBytes: 10, tier: 'storage' });
    for (const to of ['host', 'device'] as const) {
      residency.complete(must(residency.prepareMove(1, to)), 'succeeded');
    }
    residency.pin(1, 'host');
    expect(() => residency.changed(1, 'device')).toThrow(/pinned or moving in host/);
    expect(states(residency, 1)).toEqual(['resident', 'resident', 'resident']);
    residency.unpin(1, 'host');
    residency.pin(1, 'device');
    residency.changed(1, 'device');
    expect(states(residency, 1)).toEqual(['resident', 'absent', 'absent']);
    expect(policies.storage.log).toEqual(['1 explicit']);
    residency.check();
  });

  it('rejects misuse and changes nothing by it', () => {
    const { residency } = setup();
    residency.tryAdd(1, { sizeBytes: 10, tier: 'host' });
    const move = must(residency.prepareMove(1, 'device'));
    const wrong: (() => unknown)[] = [
      () => residency.tryAdd(1, { sizeBytes: 10, tier: 'host' }),
      () => residency.tryAdd(2, { sizeBytes: -1, tier: 'host' }),
      () => residency.tryAdd(2, { sizeBytes: 1, tier: 'host', reloadCost: NaN }),
      () => residency.prepareMove(1, 'device'),
      () => residency.prepareMove(1, 'host'),
      () => residency.prepareMove(1, 'storage', 'device'),
      () => residency.prepareMove(2, 'device'),
      () => residency.complete({ ...move }, 'succeeded'),
      () => residency.touch(1, 'device'),
      () => residency.drop(2, 'host'),
      () => residency.planRoom('host', -1),
      // A caller in plain JavaScript can name any tier.
      () => residency.state(1, 'disk' as Tier),
    ];
    for (const call of wrong) {
      expect(call).toThrow(/invalid-argument/);
      residency.check();
    }
    residency.complete(move, 'failed');
    expect(() => residency.complete(move, 'failed')).toThrow(/not in flight/);
    expect(states(residency, 1)).toEqual(['absent', 'resident', 'absent']);
    const policy = new LruPolicy();
    const tier = { name: 'device', budgetBytes: 1, policy } as const;
    expect(() => new Residency<Id, Tier>({ tiers: [] })).toThrow(/count of tiers/);
    expect(() => new Residency<Id, Tier>({ tiers: [tier, { ...tier, name: 'host' }] })).toThrow(
      /of its own/,
    );
    expect(() => new Residency<Id, Tier>({ tiers: [{ ...tier, budgetBytes: -1 }] })).toThrow(
      /budgetBytes of device/,
    );
  });
});

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
  fc.record({ op: fc.constant('add' as const), id, tier: anyTier, size: fc.nat(40), recreatable: fc.boolean() }),
  fc.record({ op: fc.constantFrom('remove' as const, 'evict' as const), id, tier: anyTier, size: fc.nat(60) }),
  fc.record({ op: fc.constantFrom('touch', 'pin', 'unpin', 'drop', 'changed'), id, tier: anyTier }),
  fc.record({ op: fc.constant('move' as const), id, tier: anyTier, from: fc.option(anyTier, { nil: undefined }) }),
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
    const copies = { device: 'absent', host: 'absent', storage: 'absent', [tier]: 'resident' } as const;
    const pins = { device: 0, host: 0, storage: 0 };
    this.#objects.set(objectId, { sizeBytes, recreatable, copies: { ...copies }, pins });
  }

  remove(objectId: number): void {
    const allowed = this.#objects.has(objectId) && !TIERS.some((tier) => this.#isHeld(objectId, tier));
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
      object?.copies[to] === 'absent' && source !== undefined && object.copies[source] === 'resident';
    const fits = this.#used(to) + (object?.sizeBytes ?? 0) <= BUDGETS[to];
    const move = this.#attempt(allowed, () => this.#setup.residency.prepareMove(objectId, to, from));
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
    for (let room = free; room < sizeBytes; ) {
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
      expect(new Set(policies[tier].order)).toEqual(new Set(resident.map(([objectId]) => objectId)));
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
