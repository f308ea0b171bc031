/** The residency machine: its rules, one by one. The random walks are in a file of their own. */
import { describe, expect, it } from 'vitest';
import { Residency } from './residency.js';
import { LruPolicy } from './testing.js';

const TIERS = ['device', 'host', 'storage'] as const;
type Tier = (typeof TIERS)[number];
type Id = number | string;

function setup(device = 100, host = 200) {
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
    expect(residency.tryAdd(3, { sizeBytes: 40, tier: 'storage' })).toBe(true);
    expect([...residency.ids()]).toEqual([1, 2, 3]);
    must(residency.prepareMove(3, 'device'));
    expect(residency.usage('device').incomingBytes).toBe(100);
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
    const policy = new LruPolicy<Id>();
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
