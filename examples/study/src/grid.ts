/**
 * What is measured, as data: a cell is one policy at one budget and block size on one document.
 *
 * Cells come in stages, the ones that decide most first: an interrupted study is a smaller study.
 * A budget below three blocks, or below what a policy protects, is no cell but a reason.
 */
import { isVramError } from '@vramkit/core';
import { inChunks, kvPolicy, KV_POLICY_NAMES, type KvPolicy } from '@vramkit/eviction';

/** What is measured of a cell. */
export type Part = 'continuation' | 'scores' | 'retrieval' | 'decode';

/** How tokens go at prefill: one by one, or whole blocks. At decode blocks go. */
export type PrefillGranularity = 'token' | 'block';

/** One point of the grid, without its document. */
export interface Cell {
  readonly part: Part;
  readonly policy: string;
  /** Budget as a share of the context: 1 for the full cache. */
  readonly share: number;
  readonly blockSize: number;
  readonly prefill: PrefillGranularity;
}

/** Cells that share a prefill on each document. */
export interface Stage {
  readonly part: Part;
  readonly blockSize: number;
  readonly cells: readonly Cell[];
}

/** Sizes of a study. */
export interface GridOptions {
  readonly shares: readonly number[];
  readonly blockSizes: readonly number[];
  readonly policies: readonly string[];
}

/** The policies of the claim: PagedEviction and those that its paper compares it with. */
export const CLAIM_POLICIES: readonly string[] = [
  'pagedEviction',
  'streamingLlm',
  'inverseKeyNorm',
  'keyDiff',
];

/** PagedEviction as the paper describes it: neither end is protected. */
const LITERAL = 'pagedEvictionLiteral';

/** Everything; a study of part of it names less. */
export const WHOLE_GRID: GridOptions = {
  shares: [1 / 4, 1 / 8, 1 / 2, 1 / 16],
  blockSizes: [16, 8, 32],
  policies: [
    ...CLAIM_POLICIES,
    LITERAL,
    ...KV_POLICY_NAMES.filter((name) => name !== 'full' && !CLAIM_POLICIES.includes(name)),
  ],
};

/** Every policy at every share. */
type CellList = readonly [
  policies: readonly string[],
  shares: readonly number[],
  prefill?: PrefillGranularity,
];

/** Name under which a cell's result is kept. */
export function cellName(cell: Cell): string {
  const { part, policy, share, blockSize, prefill } = cell;
  return `${part}-b${blockSize}-${policy}-${prefill}-${Math.round(1 / share)}`;
}

/** The cells of a study in the order in which they are run. */
export function planStages({ shares, blockSizes, policies }: GridOptions): Stage[] {
  const claim = policies.filter((name) => CLAIM_POLICIES.includes(name));
  const others = policies.filter((name) => !claim.includes(name));
  const [blockSize = 16, ...otherSizes] = blockSizes;
  const [first = [], second = [], rest = []] = [
    shares.slice(0, 1),
    shares.slice(1, 2),
    shares.slice(2),
  ];
  const large = [...first, ...second];
  const stages: Stage[] = [];
  const add = (part: Part, size: number, lists: readonly CellList[]): void => {
    const cells = lists.flatMap(([names, of, prefill = 'token']) =>
      of.flatMap((share) =>
        names.map((policy): Cell => ({ part, policy, share, blockSize: size, prefill })),
      ),
    );
    const full: Cell = { part, policy: 'full', share: 1, blockSize: size, prefill: 'token' };
    stages.push({ part, blockSize: size, cells: [full, ...cells] });
  };
  add('continuation', blockSize, [
    [claim, large],
    [claim, large, 'block'],
  ]);
  add('scores', blockSize, []);
  add('continuation', blockSize, [[claim, rest]]);
  add('retrieval', blockSize, [[claim, first]]);
  add('continuation', blockSize, [[others, first]]);
  for (const size of otherSizes) add('continuation', size, [[claim, large]]);
  add('retrieval', blockSize, [
    [claim, second],
    [others, first],
  ]);
  add('continuation', blockSize, [
    [others, [...second, ...rest]],
    [claim, rest, 'block'],
  ]);
  for (const size of otherSizes) add('continuation', size, [[claim, rest]]);
  add('retrieval', blockSize, [
    [claim, rest],
    [others, [...second, ...rest]],
  ]);
  add('decode', blockSize, [[policies, first]]);
  return stages;
}

/**
 * The policy of a cell, or why there is none. Windows that a policy protects by default are cut to
 * a third of the budget, in whole blocks.
 * @param contextTokens What the budget is a share of.
 */
export function policyOf(cell: Cell, contextTokens: number): KvPolicy | string {
  const { policy: name, share, blockSize, prefill } = cell;
  const budgetTokens = Math.floor((contextTokens * share) / blockSize) * blockSize;
  const third = Math.max(1, Math.floor(budgetTokens / 3 / blockSize)) * blockSize;
  const windowTokens = Math.min(32, third);
  const lagTokens = Math.min(128, third);
  try {
    const paperLiteral = name === LITERAL;
    const options = { budgetTokens, blockSize, windowTokens, lagTokens, paperLiteral, seed: 1 };
    const policy = kvPolicy(paperLiteral ? 'pagedEviction' : name, options);
    return prefill === 'block' ? inChunks(policy) : policy;
  } catch (error) {
    if (isVramError(error, 'invalid-argument')) return error.message;
    throw error;
  }
}
