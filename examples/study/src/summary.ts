/**
 * From results of cells to figures of policies: means over documents with their spread.
 *
 * Documents differ more from each other than policies do, so what is compared is paired: a
 * policy's loss beside that of the full cache, or of another policy, on the same document. Pure.
 */
import type { Half } from './documents.js';
import type { Cell } from './grid.js';
import { deviation, mean } from './metrics.js';
import type { CellResult } from './results.js';
import type { ScoreMeaning } from './score-meaning.js';

/** The halves, and both together. */
export type Documents = Half | 'both';

/** A figure over documents. */
export interface Spread {
  readonly mean: number;
  /** Standard deviation over the documents. */
  readonly deviation: number;
  readonly count: number;
}

/** Figures of a cell over a set of documents; those of other parts are absent. */
export interface Row extends Cell {
  readonly documents: Documents;
  readonly figures: Readonly<Partial<Record<Figure, Spread>>>;
}

/** What a figure is called in JSON. */
export type Figure =
  /** `exp` of the mean loss of the true continuation. */
  | 'perplexity'
  /** Mean loss beside that of the full cache, nats per token. */
  | 'lossIncrease'
  /** Share of greedy tokens that are those of the full cache. */
  | 'agreement'
  /** Divergence from the full cache's next-token distribution, nats. */
  | 'divergence'
  /** Relative error of attention outputs after the prefill, mean over layers and heads. */
  | 'attentionError'
  /** Share of attention on what stayed. */
  | 'keptMass'
  /** Most bytes of K, V and norms that the sequence held. */
  | 'kvPeakBytes'
  /** Share of pass keys, and of facts, that were found. */
  | 'passkeys'
  | 'facts'
  /** Mean log-probability of the pass keys' tokens, nats. */
  | 'passkeyLogProbability'
  | 'tokensPerSecond'
  /** Share of decode time that decisions took. */
  | 'evictionShare';

/** PagedEviction beside another policy on the same documents. */
export interface Comparison extends Omit<Cell, 'policy' | 'part'> {
  readonly rival: string;
  readonly documents: Documents;
  /** Rival's loss less PagedEviction's, nats per token: above 0, PagedEviction is better. */
  readonly loss: Spread;
  /** PagedEviction's agreement less the rival's: above 0, PagedEviction is better. */
  readonly agreement: Spread;
  /** Documents on which PagedEviction's loss is not higher. */
  readonly wins: number;
}

/** Which part of a cell's figures, of one document. */
type Values = Partial<Record<Figure, number>>;

function spread(values: readonly number[]): Spread {
  return { mean: mean(values), deviation: deviation(values), count: values.length };
}

/** Key of what may be compared: the same cell apart from policy and budget. */
function keyOf(cell: Cell): string {
  return `${cell.part} ${cell.blockSize} ${cell.prefill} ${cell.policy} ${cell.share}`;
}

/** The mean loss, by document, of the full cache: block sizes give the same. */
function fullLosses(results: readonly CellResult[]): Map<string, number> {
  return new Map(
    results.flatMap(({ cell, document, continuation }) =>
      cell.policy === 'full' && continuation ? [[document, mean(continuation.losses)]] : [],
    ),
  );
}

function valuesOf(result: CellResult, full: ReadonlyMap<string, number>): Values {
  const { continuation, answers, decode } = result;
  if (continuation !== undefined) {
    const loss = mean(continuation.losses);
    return {
      perplexity: loss,
      lossIncrease: loss - (full.get(result.document) ?? NaN),
      agreement: mean(continuation.agrees),
      divergence: mean(continuation.divergences),
      attentionError: mean(continuation.attentionError.flat()),
      keptMass: mean(continuation.keptMass.flat()),
      kvPeakBytes: continuation.kvPeakBytes,
    };
  }
  if (answers !== undefined) {
    const keys = answers.filter(({ kind }) => kind === 'passkey');
    const facts = answers.filter(({ kind }) => kind === 'fact');
    return {
      passkeys: mean(keys.map(({ found }) => Number(found))),
      passkeyLogProbability: mean(keys.map(({ logProbability }) => logProbability)),
      ...(facts.length > 0 ? { facts: mean(facts.map(({ found }) => Number(found))) } : {}),
    };
  }
  return { ...decode };
}

/** Results of a half, or all. */
function ofHalf(results: readonly CellResult[], documents: Documents): CellResult[] {
  return results.filter(({ half }) => documents === 'both' || half === documents);
}

/** One row per cell and set of documents; refused cells have none. */
export function summarizeCells(results: readonly CellResult[]): Row[] {
  const full = fullLosses(results);
  const rows: Row[] = [];
  for (const documents of ['both', 'seen', 'unseen'] as const) {
    const groups = new Map<string, CellResult[]>();
    for (const result of ofHalf(results, documents)) {
      if (result.refused !== undefined) continue;
      const key = keyOf(result.cell);
      groups.set(key, [...(groups.get(key) ?? []), result]);
    }
    for (const group of groups.values()) {
      const values = group.map((result) => valuesOf(result, full));
      const names = new Set(values.flatMap((each) => Object.keys(each) as Figure[]));
      const figures: Partial<Record<Figure, Spread>> = {};
      for (const name of names) {
        const all = values.flatMap((each) => each[name] ?? []);
        figures[name] = spread(all);
      }
      // Perplexity is the exponential of a mean: its spread is that of the loss, in the table.
      const { perplexity } = figures;
      if (perplexity) figures.perplexity = { ...perplexity, mean: Math.exp(perplexity.mean) };
      const [first] = group;
      if (first !== undefined) rows.push({ ...first.cell, documents, figures });
    }
  }
  return rows;
}

/** PagedEviction beside `rivals`, at equal budget, block size and granularity. */
export function comparePaged(
  results: readonly CellResult[],
  rivals: readonly string[],
): Comparison[] {
  const comparisons: Comparison[] = [];
  for (const documents of ['both', 'seen', 'unseen'] as const) {
    const own = ofHalf(results, documents).filter(({ continuation }) => continuation);
    const cells = new Map(own.map(({ cell }) => [keyOf(cell), cell]));
    for (const cell of cells.values()) {
      if (!rivals.includes(cell.policy)) continue;
      const find = (policy: string, document: string): CellResult['continuation'] =>
        own.find((each) => {
          return each.document === document && keyOf(each.cell) === keyOf({ ...cell, policy });
        })?.continuation;
      const names = [...new Set(own.map(({ document }) => document))];
      const pairs = names.flatMap((document) => {
        const paged = find('pagedEviction', document);
        const rival = find(cell.policy, document);
        if (paged === undefined || rival === undefined) return [];
        return [
          {
            loss: mean(rival.losses) - mean(paged.losses),
            agreement: mean(paged.agrees) - mean(rival.agrees),
          },
        ];
      });
      if (pairs.length === 0) continue;
      const { policy: rival, share, blockSize, prefill } = cell;
      comparisons.push({
        ...{ rival, share, blockSize, prefill, documents },
        loss: spread(pairs.map(({ loss }) => loss)),
        agreement: spread(pairs.map(({ agreement }) => agreement)),
        wins: pairs.filter(({ loss }) => loss >= 0).length,
      });
    }
  }
  return comparisons;
}

/**
 * What a paired difference says: its mean is beyond two standard errors of it, or not.
 */
export function verdict({ mean: middle, deviation: sd, count }: Spread): string {
  const error = (2 * sd) / Math.sqrt(count);
  if (count < 2) return 'one document';
  if (middle > error) return 'better';
  return middle < -error ? 'worse' : 'no clear difference';
}

/** Mean over documents of a matrix [layers][heads] of a cell. */
export function meanMatrix(
  results: readonly CellResult[],
  cell: Cell,
  name: 'attentionError' | 'keptMass',
): number[][] {
  const key = keyOf(cell);
  const all = results.flatMap((result) =>
    keyOf(result.cell) === key && result.continuation ? [result.continuation[name]] : [],
  );
  const [first = []] = all;
  return first.map((row, layer) =>
    row.map((_, head) => mean(all.map((each) => each[layer]?.[head] ?? NaN))),
  );
}

/** Mean over documents of what ranks say about attention; `undefined` without results. */
export function meanScores(results: readonly CellResult[]): ScoreMeaning | undefined {
  const all = results.flatMap(({ scores }) => scores ?? []);
  const [first] = all;
  if (first === undefined) return undefined;
  const over = (pick: (each: ScoreMeaning) => readonly number[]): number[] =>
    pick(first).map((_, layer) => mean(all.map((each) => pick(each)[layer] ?? NaN)));
  return {
    correlations: {
      inverseKeyNorm: over(({ correlations }) => correlations.inverseKeyNorm),
      valueNorm: over(({ correlations }) => correlations.valueNorm),
      valueOverKeyNorm: over(({ correlations }) => correlations.valueOverKeyNorm),
      position: over(({ correlations }) => correlations.position),
    },
    say: over(({ say }) => say),
  };
}

/** Share of pass keys found at each of `bins` depths, per policy of a share. */
export function keysByDepth(
  results: readonly CellResult[],
  cell: Cell,
  bins: number,
): (number | undefined)[] {
  const key = keyOf(cell);
  const answers = results.flatMap((result) =>
    keyOf(result.cell) === key ? (result.answers ?? []).filter((a) => a.kind === 'passkey') : [],
  );
  return Array.from({ length: bins }, (_, bin) => {
    const here = answers.filter(({ depth }) => Math.floor(depth * bins) === bin);
    return here.length === 0 ? undefined : mean(here.map(({ found }) => Number(found)));
  });
}
