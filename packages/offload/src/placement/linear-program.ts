/**
 * The best shares as a linear program: nine shares and one time per kind of pass.
 *
 *     minimise    prefills * tp + steps * td
 *     such that   t >= compute + link            single queue; else t >= compute, t >= link
 *                 t >= storage
 *                 shares of a kind add up to 1, bytes of a tier fit
 *
 * Source: FlexGen (Sheng et al., 2023), whose policy search is such a program; the passes, the
 * experts and the single queue are ours. Solved by npm `yalps` (docs/adr/0055). The optimum of the
 * shares bounds every plan of whole layers, experts and blocks from below.
 */
import { solve } from 'yalps';
import type { PassCost, Shares, WorkloadCost } from './cost.js';
import {
  PLACED_KINDS,
  PLACEMENT_TIERS,
  type KindSize,
  type PerTier,
  type PlacedKind,
} from './inference.js';

/** What bounds the shares. */
export interface ShareLimits {
  readonly sizes: Readonly<Record<PlacedKind, KindSize>>;
  /** Bytes of each tier that kinds may take. */
  readonly capacity: PerTier;
  /** Shares that are given. */
  readonly fixed: Partial<Shares>;
}

/** The shares of least time, or `undefined` where none fit. */
export function solveShares(cost: WorkloadCost, limits: ShareLimits): Shares | undefined {
  // Bytes as a part of all bytes and times in seconds keep the numbers near 1.
  const unit = Math.max(1, ...PLACED_KINDS.map((kind) => limits.sizes[kind].totalBytes));
  const constraints = new Map<string, { min?: number; max?: number; equal?: number }>();
  for (const tier of PLACEMENT_TIERS) {
    if (limits.capacity[tier] < Infinity) {
      constraints.set(tier, { max: limits.capacity[tier] / unit });
    }
  }
  const variables = new Map<string, Map<string, number>>();
  const passes = { prefill: cost.prefill, decode: cost.decode };
  for (const [name, pass] of Object.entries(passes)) {
    const time = new Map([['ms', pass.count]]);
    for (const row of ['near', 'link', 'storage']) time.set(`${name} ${row}`, 1);
    variables.set(name, time);
    constraints.set(`${name} near`, { min: pass.computeMs });
    constraints.set(`${name} storage`, { min: 0 });
    if (cost.queue === 'streams') constraints.set(`${name} link`, { min: 0 });
  }
  for (const kind of PLACED_KINDS) {
    constraints.set(kind, { equal: 1 });
    for (const tier of PLACEMENT_TIERS) {
      const column = new Map<string, number>([
        [kind, 1],
        [tier, limits.sizes[kind].totalBytes / unit],
      ]);
      for (const [name, pass] of Object.entries(passes)) addTimes(column, name, pass, kind, tier);
      const share = limits.fixed[kind]?.[tier];
      if (share !== undefined) {
        column.set(`${kind} ${tier}`, 1);
        constraints.set(`${kind} ${tier}`, { equal: share });
      }
      variables.set(`${kind} in ${tier}`, column);
    }
  }
  const solution = solve({ direction: 'minimize', objective: 'ms', constraints, variables });
  if (solution.status !== 'optimal') return undefined;
  const values = new Map(solution.variables);
  const of = (kind: PlacedKind): PerTier => ({
    device: values.get(`${kind} in device`) ?? 0,
    host: values.get(`${kind} in host`) ?? 0,
    storage: values.get(`${kind} in storage`) ?? 0,
  });
  return { weights: of('weights'), experts: of('experts'), kv: of('kv') };

  function addTimes(
    column: Map<string, number>,
    name: string,
    pass: PassCost,
    kind: PlacedKind,
    tier: string,
  ): void {
    if (tier === 'device') return;
    column.set(`${name} ${cost.queue === 'single' ? 'near' : 'link'}`, -pass.linkMs[kind]);
    if (tier === 'storage') column.set(`${name} storage`, -pass.storageMs[kind]);
  }
}
