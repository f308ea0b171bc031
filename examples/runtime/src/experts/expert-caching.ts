/**
 * How a model's experts are cached: the options, their spelling on a command line, and what a model
 * counted.
 */
import { fail, type ReplacementPolicy } from '@vramkit/core';
import { arc, gdsf, lfu, lru, s3Fifo, sieve, slru } from '@vramkit/eviction';
import type { CodeBits, ExpertCacheStats } from '@vramkit/packer';
import { parseBytes } from '../byte-size.js';
import type { LanguageModel } from '../weights.js';

/** How experts are cached. */
export interface ExpertCaching {
  /** Bytes for the experts of all layers; each layer gets an equal part. */
  readonly budgetBytes: number;
  /** Makes a replacement policy; called once for each layer and width. */
  readonly policy: () => ReplacementPolicy<number>;
  /**
   * Whether experts are read ahead: the next layer's router judges the activations of this layer,
   * and what it would choose is read while this layer computes. Default: false.
   */
  readonly prefetch?: boolean;
  /**
   * Where a router gives an expert that is not there a weight below `below`, a copy of `bits` takes
   * its place. Copies are made when the model is loaded and stay in host memory, so such a miss
   * reads nothing; results differ from those of the full experts. Default: no copies.
   */
  readonly lowBit?: LowBitCopies;
}

/** Copies of few bits; see {@link ExpertCaching}. */
export interface LowBitCopies {
  readonly bits: CodeBits;
  /** A weight of a router, in (0, 1]. */
  readonly below: number;
}

const POLICIES: Readonly<Record<string, () => ReplacementPolicy<number>>> = {
  lru: () => lru(),
  lfu: () => lfu(),
  slru: () => slru(),
  sieve: () => sieve(),
  s3Fifo: () => s3Fifo(),
  arc: () => arc(),
  gdsf: () => gdsf(),
};

/** Options of a command line for `parseArgs` of Node; {@link parseExpertCaching} reads them. */
export const EXPERT_FLAGS = {
  'expert-budget': { type: 'string' },
  'expert-policy': { type: 'string' },
  'expert-prefetch': { type: 'boolean', default: false },
  'expert-low-bit': { type: 'string' },
} as const;

/** Lines of `--help` for {@link EXPERT_FLAGS}; options take 26 columns. */
export const EXPERT_HELP = `\
  --expert-budget BYTES     device memory for the experts of a mixture of experts; the others are
                            read from the model's file when routers choose them (default: all stay)
  --expert-policy NAME      who goes first: ${Object.keys(POLICIES).join(', ')} (default: lru)
  --expert-prefetch         reads what the next layer's router is likely to choose ahead
  --expert-low-bit BITS:W   on a miss of router weight below W, a copy of 2, 3 or 4 bits from host
                            memory instead of the expert, as 2:0.3; changes results
`;

/** Values of {@link EXPERT_FLAGS}. */
export type ExpertFlags = Readonly<
  Partial<Record<keyof typeof EXPERT_FLAGS, string | boolean | undefined>>
>;

/**
 * The caching that options stand for; `undefined` without a budget.
 * @throws VramError `invalid-argument` naming the option.
 */
export function parseExpertCaching(flags: ExpertFlags): ExpertCaching | undefined {
  const { 'expert-budget': budget, 'expert-policy': name = 'lru' } = flags;
  const { 'expert-prefetch': prefetch = false, 'expert-low-bit': lowBit } = flags;
  if (typeof budget !== 'string') {
    const alone = Object.entries(flags).find(
      ([key, value]) => key.startsWith('expert-') && value !== undefined && value !== false,
    );
    if (alone === undefined) return undefined;
    return fail('invalid-argument', `--${alone[0]} needs --expert-budget`);
  }
  const known = typeof name === 'string' && Object.hasOwn(POLICIES, name);
  const policy = known ? POLICIES[name] : undefined;
  if (policy === undefined) {
    const names = Object.keys(POLICIES).join(', ');
    return fail('invalid-argument', `--expert-policy '${String(name)}' is none of ${names}`);
  }
  return {
    budgetBytes: parseBytes(budget),
    policy,
    prefetch: prefetch === true,
    ...(typeof lowBit === 'string' && { lowBit: parseLowBit(lowBit) }),
  };
}

function parseLowBit(text: string): LowBitCopies {
  const [, digit, weight] = /^([234]):(\d*\.?\d+)$/.exec(text) ?? [];
  const below = Number(weight);
  // The expression allows widths of codes only.
  if (below > 0 && below <= 1) return { bits: Number(digit) as CodeBits, below };
  return fail('invalid-argument', `--expert-low-bit '${text}' is not BITS:WEIGHT, such as 2:0.3`);
}

/** Counts of all layers of a model; `undefined` where no experts are cached. */
export function expertStats({ layers }: LanguageModel): ExpertCacheStats | undefined {
  const all = layers.flatMap(({ feedForward }) =>
    feedForward.type === 'experts' && feedForward.cache !== undefined
      ? [feedForward.cache.stats()]
      : [],
  );
  if (all.length === 0) return undefined;
  const sum = (key: keyof ExpertCacheStats): number =>
    all.reduce((total, stats) => total + stats[key], 0);
  return {
    hits: sum('hits'),
    misses: sum('misses'),
    lowBit: sum('lowBit'),
    prefetched: sum('prefetched'),
    prefetchHits: sum('prefetchHits'),
    evictions: sum('evictions'),
    loadedBytes: sum('loadedBytes'),
  };
}
