/**
 * Whole layers, experts and KV blocks by tier: rounds shares to them, and fills nearer tiers with
 * what saves the most time per byte.
 */
import type { Shares, WorkloadCost } from './cost.js';
import {
  PLACED_KINDS,
  PLACEMENT_TIERS,
  type KindSize,
  type PerTier,
  type PlacedKind,
  type PlacementTier,
} from './inference.js';

/** Units of each kind by tier. */
export type Units = Record<PlacedKind, Record<PlacementTier, number>>;
type Sizes = Readonly<Record<PlacedKind, KindSize>>;

function countOf({ totalBytes, unitBytes }: KindSize): number {
  return unitBytes === 0 ? 0 : Math.round(totalBytes / unitBytes);
}

/** All of every kind in storage. */
export function allInStorage(sizes: Sizes): Units {
  const far = (kind: PlacedKind) => ({ device: 0, host: 0, storage: countOf(sizes[kind]) });
  return { weights: far('weights'), experts: far('experts'), kv: far('kv') };
}

/** Rounds shares to whole units; what is cut off goes to the next farther tier. */
export function toUnits(sizes: Sizes, shares: Partial<Shares>): Units {
  const units = allInStorage(sizes);
  for (const kind of PLACED_KINDS) {
    const share = shares[kind];
    if (share === undefined) continue;
    const count = countOf(sizes[kind]);
    const device = Math.floor(share.device * count + 1e-6);
    const near = Math.floor((share.device + share.host) * count + 1e-6);
    units[kind] = { device, host: near - device, storage: count - near };
  }
  return units;
}

/** The shares that units come to. A kind without bytes counts as on the device. */
export function toShares(sizes: Sizes, units: Units): Shares {
  const of = (kind: PlacedKind): PerTier => {
    const count = countOf(sizes[kind]);
    if (count === 0) return { device: 1, host: 0, storage: 0 };
    const { device, host, storage } = units[kind];
    return { device: device / count, host: host / count, storage: storage / count };
  };
  return { weights: of('weights'), experts: of('experts'), kv: of('kv') };
}

/** Bytes of all kinds by tier. */
export function unitBytes(sizes: Sizes, units: Units): Record<PlacementTier, number> {
  const bytes = { device: 0, host: 0, storage: 0 };
  for (const kind of PLACED_KINDS) {
    for (const tier of PLACEMENT_TIERS) bytes[tier] += units[kind][tier] * sizes[kind].unitBytes;
  }
  return bytes;
}

/**
 * Moves units of `kinds` nearer while there is room, the kind first that saves the most time per
 * byte. The device is filled before the host. Changes `units`.
 */
export function promote(
  units: Units,
  kinds: readonly PlacedKind[],
  limits: { readonly sizes: Sizes; readonly capacity: PerTier },
  cost: WorkloadCost,
): void {
  const { sizes, capacity } = limits;
  for (const [tier, times] of [
    ['device', 'linkMs'],
    ['host', 'storageMs'],
  ] as const) {
    const saved = (kind: PlacedKind): number =>
      (cost.prefill.count * cost.prefill[times][kind] +
        cost.decode.count * cost.decode[times][kind]) /
      sizes[kind].totalBytes;
    const order = kinds.filter((kind) => sizes[kind].totalBytes > 0);
    for (const kind of order.sort((a, b) => saved(b) - saved(a))) {
      // The farthest first: it gains the most.
      const from = tier === 'device' ? (['storage', 'host'] as const) : (['storage'] as const);
      for (const source of from) {
        const room = capacity[tier] - unitBytes(sizes, units)[tier];
        const fit = Math.max(0, Math.floor(room / sizes[kind].unitBytes));
        const moved = Math.min(fit, units[kind][source]);
        units[kind][tier] += moved;
        units[kind][source] -= moved;
      }
    }
  }
}
