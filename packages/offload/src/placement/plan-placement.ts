/**
 * Where weights, experts and KV of a model live while it generates: the shares by tier for which a
 * workload takes the least time within byte budgets, or the bytes that are missing.
 *
 * Two searches check each other: a linear program over shares, rounded to whole layers, experts
 * and blocks, and a greedy fill by time saved per byte. The faster plan is taken; the program's
 * optimum, which no whole plan can beat, is reported beside it. Each search runs for every way of
 * streaming: none, with all weights on the device, and those that set device memory aside.
 */
import { assertArgument } from '@vramkit/core';
import {
  passMs,
  totalMs,
  workloadCost,
  type PassBound,
  type Shares,
  type WorkloadCost,
} from './cost.js';
import {
  checkInference,
  fixedDeviceBytes,
  kindSizes,
  PLACED_KINDS,
  PLACEMENT_TIERS,
  streamingBytes,
  type InferenceMachine,
  type InferenceModel,
  type InferenceWorkload,
  type PerTier,
  type PlacedKind,
  type PlacementBudgets,
  type PlacementTier,
  type Streaming,
} from './inference.js';
import { solveShares } from './linear-program.js';
import { promote, toShares, toUnits, unitBytes, type Units } from './units.js';

/** Options of {@link planPlacement}. */
export interface PlacementOptions {
  /** What is asked of the model. No default. */
  readonly workload: InferenceWorkload;
  /** Rates to plan for. No default. */
  readonly machine: InferenceMachine;
  /** Default: no limits. */
  readonly budgets?: PlacementBudgets;
  /** Shares that are given; they are rounded to whole units. Default: none. */
  readonly fix?: Partial<Shares>;
}

/** A plan with its prediction; plain data. */
export interface Placement {
  /** Which search found it. */
  readonly found: 'linear program' | 'greedy';
  /** Shares of each kind by tier, in whole units. */
  readonly shares: Shares;
  /** Layers, experts and blocks of 16 tokens by tier. */
  readonly units: Readonly<Record<PlacedKind, PerTier>>;
  /** Bytes by tier, what cannot move and what streaming takes included. */
  readonly bytes: PerTier;
  /** How layers that are away reach the device; its slots and staging are in `bytes.device`. */
  readonly streaming: Streaming;
  readonly predicted: {
    readonly totalMs: number;
    /** Prompt tokens per second while prompts are read. */
    readonly prefillTokensPerSecond: number;
    /** Tokens per second of the batch while it decodes. */
    readonly decodeTokensPerSecond: number;
    /** Tokens given over the whole time. */
    readonly tokensPerSecond: number;
    readonly prefillBound: PassBound;
    readonly decodeBound: PassBound;
  };
  /** What the linear program reaches with shares that need not be whole, milliseconds. */
  readonly lowerBoundMs: number;
  /** Name of the measurement that the prediction rests on. */
  readonly measurement: string;
}

/** Bytes that a tier lacks; with them a plan exists. */
export interface PlacementShortfall {
  readonly tier: PlacementTier;
  readonly missingBytes: number;
}

/** A plan, or what is missing. */
export type PlacementResult = Placement | { readonly infeasible: readonly PlacementShortfall[] };

interface Candidate {
  readonly found: Placement['found'];
  readonly units: Units;
  readonly streaming: Streaming;
  readonly cost: WorkloadCost;
}

/**
 * Plans where a model's bytes are.
 * @throws VramError `invalid-argument` for counts, rates, budgets or shares out of range.
 */
export function planPlacement(model: InferenceModel, options: PlacementOptions): PlacementResult {
  const { workload, machine } = options;
  checkInference(model, workload, machine);
  const budgets = { device: Infinity, host: Infinity, storage: Infinity, ...options.budgets };
  for (const tier of PLACEMENT_TIERS) {
    assertArgument(budgets[tier] >= 0, `the budget of ${tier} is ${budgets[tier]} B`);
  }
  checkFixed(options.fix ?? {});
  const sizes = kindSizes(model, workload);
  const { candidates, lowerBoundMs } = search(model, options, budgets);
  const time = ({ units, cost }: Candidate): number => totalMs(cost, toShares(sizes, units));
  const [best] = candidates.sort((a, b) => time(a) - time(b));
  if (best === undefined) return { infeasible: enough(model, options, budgets) };
  const { cost } = best;
  const shares = toShares(sizes, best.units);
  const bytes = unitBytes(sizes, best.units);
  bytes.device += fixedDeviceBytes(model) + streamingBytes(model, best.streaming);
  const prefill = passMs(cost.prefill, shares, cost.queue);
  const decode = passMs(cost.decode, shares, cost.queue);
  const { batch, promptTokens, outputTokens } = workload;
  const ms = totalMs(cost, shares);
  return {
    found: best.found,
    shares,
    units: best.units,
    bytes,
    streaming: best.streaming,
    predicted: {
      totalMs: ms,
      prefillTokensPerSecond: (1e3 * batch * promptTokens) / (cost.prefill.count * prefill.ms),
      decodeTokensPerSecond: (1e3 * batch) / decode.ms,
      tokensPerSecond: (1e3 * batch * outputTokens) / ms,
      prefillBound: prefill.bound,
      decodeBound: decode.bound,
    },
    lowerBoundMs,
    measurement: machine.name,
  };
}

/** The plans that both searches find within budgets, by every way of streaming. */
function search(
  model: InferenceModel,
  { workload, machine, fix: given = {} }: PlacementOptions,
  budgets: PerTier,
): { readonly candidates: Candidate[]; readonly lowerBoundMs: number } {
  const sizes = kindSizes(model, workload);
  // In whole units, as they will be: else plans could be better than the bound.
  const rounded = toShares(sizes, toUnits(sizes, given));
  const fix: Partial<Record<PlacedKind, PerTier>> = {};
  for (const kind of PLACED_KINDS) if (given[kind] !== undefined) fix[kind] = rounded[kind];
  const fixedBytes = fixedDeviceBytes(model);
  const onDevice = { device: 1, host: 0, storage: 0 };
  const canStay = (['weights', 'experts'] as const).every((kind) => (fix[kind]?.device ?? 1) === 1);
  const candidates: Candidate[] = [];
  let lowerBoundMs = Infinity;
  // Of plans that are as fast, the first takes the fewest bytes.
  for (const streaming of ['none', 'single-buffered', 'double-buffered'] as const) {
    const stays = streaming === 'none';
    const device = budgets.device - fixedBytes - streamingBytes(model, streaming);
    if (device < 0 || (stays && !canStay)) continue;
    const fixed = stays ? { ...fix, weights: onDevice, experts: onDevice } : fix;
    const limits = { sizes, capacity: { ...budgets, device }, fixed };
    const movable = PLACED_KINDS.filter((kind) => fixed[kind] === undefined);
    const cost = workloadCost(model, workload, machine, streaming);
    const shares = solveShares(cost, limits);
    if (shares !== undefined) lowerBoundMs = Math.min(lowerBoundMs, totalMs(cost, shares));
    for (const [found, start] of [
      ['linear program', shares],
      ['greedy', fixed],
    ] as const) {
      if (start === undefined) continue;
      const units = toUnits(sizes, start);
      promote(units, movable, limits, cost);
      const bytes = unitBytes(sizes, units);
      if (PLACEMENT_TIERS.some((tier) => bytes[tier] > limits.capacity[tier])) continue;
      candidates.push({ found, units, streaming, cost });
    }
  }
  return { candidates, lowerBoundMs };
}

function checkFixed(fix: Partial<Shares>): void {
  for (const kind of PLACED_KINDS) {
    const shares = fix[kind];
    if (shares === undefined) continue;
    const { device, host, storage } = shares;
    const isShare = [device, host, storage].every((share) => share >= 0 && share <= 1);
    assertArgument(
      isShare && Math.abs(device + host + storage - 1) < 1e-6,
      `shares of ${kind} are ${device}, ${host} and ${storage}; they must add up to 1`,
    );
  }
}

/** Most whole units that rounding may cost beside the bytes. */
const MOST_WASTED = 64;

/** {@link shortfalls}, and what rounding to whole units costs beside it, in the last of them. */
function enough(
  model: InferenceModel,
  options: PlacementOptions,
  budgets: PerTier,
): PlacementShortfall[] {
  const sizes = kindSizes(model, options.workload);
  const unit = Math.max(...PLACED_KINDS.map((kind) => sizes[kind].unitBytes));
  const bytesAlone = shortfalls(model, options, budgets);
  for (let wasted = 0; wasted <= MOST_WASTED; wasted++) {
    const missing = bytesAlone.map(({ tier, missingBytes }, at) => ({
      tier,
      missingBytes: missingBytes + (at === bytesAlone.length - 1 ? wasted * unit : 0),
    }));
    const raised = { ...budgets };
    for (const { tier, missingBytes } of missing) raised[tier] += missingBytes;
    if (search(model, options, raised).candidates.length > 0) return missing;
  }
  return bytesAlone;
}

/** What no plan can do without, each tier once. */
function shortfalls(
  model: InferenceModel,
  { workload, fix = {} }: PlacementOptions,
  budgets: PerTier,
): PlacementShortfall[] {
  const sizes = kindSizes(model, workload);
  const fixed = unitBytes(sizes, toUnits(sizes, fix));
  const unfixed = PLACED_KINDS.filter((kind) => fix[kind] === undefined);
  const movable = unfixed.reduce((sum, kind) => sum + sizes[kind].totalBytes, 0);
  // toUnits leaves kinds without shares in storage.
  fixed.storage -= movable;
  const stays = unfixed.includes('weights') && unfixed.includes('experts');
  const least = streamingBytes(model, 'single-buffered');
  const inLayers = sizes.weights.totalBytes + sizes.experts.totalBytes;
  // Few layers are rather held than streamed: the device must have room for one or the other.
  const isHeld = stays && inLayers < least;
  const layers = isHeld ? inLayers : least;
  const rest = movable - (isHeld ? inLayers : 0);
  const missing = new Map<PlacementTier, number>();
  let room = 0;
  for (const tier of PLACEMENT_TIERS) {
    const needed = fixed[tier] + (tier === 'device' ? fixedDeviceBytes(model) + layers : 0);
    const missingBytes = needed - budgets[tier];
    if (missingBytes > 0) missing.set(tier, missingBytes);
    else room -= missingBytes;
  }
  if (rest > room) {
    // The farthest tier that is allowed; the device where all others are off.
    const tier = (['storage', 'host'] as const).find((each) => budgets[each] > 0) ?? 'device';
    missing.set(tier, (missing.get(tier) ?? 0) + rest - room);
  }
  // Bytes suffice, whole units do not: the largest unit always helps.
  const largest = Math.max(...PLACED_KINDS.map((kind) => sizes[kind].unitBytes));
  if (missing.size === 0) missing.set('device', largest);
  return [...missing].map(([tier, missingBytes]) => ({ tier, missingBytes }));
}
