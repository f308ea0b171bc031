/** What a report holds, whichever form it takes: titles, sentences, tables and plots of a model. */
import { CLAIM_POLICIES, type Cell } from '../grid.js';
import { mean } from '../metrics.js';
import type { CellResult } from '../results.js';
import { STATISTICS } from '../score-meaning.js';
import {
  comparePaged,
  keysByDepth,
  meanMatrix,
  meanScores,
  summarizeCells,
  type Comparison,
  type Documents,
  type Figure,
  type Row,
} from '../summary.js';
import { headMaps, linePlot, pointPlot, type Series } from './plots.js';
import { comparisonTable, figureTable, refusedTable, shareName, type Table } from './tables.js';

/** One part of a report. */
export interface Section {
  readonly title: string;
  readonly text: string;
  readonly table?: Table;
  /** SVG by file name. */
  readonly plots?: Readonly<Record<string, string>>;
}

/** Everything about one model. */
export interface ModelReport {
  readonly model: string;
  readonly driver: string;
  readonly contextTokens: number;
  readonly rows: readonly Row[];
  readonly comparisons: readonly Comparison[];
  readonly sections: readonly Section[];
}

const RIVALS = CLAIM_POLICIES.filter((name) => name !== 'pagedEviction');
const DEPTHS = 4;
const three = (value: number): string => value.toFixed(3);
const percent = (value: number): string => `${Math.round(100 * value)} %`;

/** The budgets of some rows, the smallest first; the full cache is none. */
function sharesOf(rows: readonly Row[]): number[] {
  const shares = new Set(rows.map(({ share }) => share).filter((share) => share < 1));
  return [...shares].sort((a, b) => a - b);
}

/** The share that most policies were measured at, or the largest of several. */
function commonShare(rows: readonly Row[]): number | undefined {
  const count = (share: number): number => rows.filter((row) => row.share === share).length;
  return sharesOf(rows).sort((a, b) => count(b) - count(a) || b - a)[0];
}

function budgetPlot(all: readonly Row[], figure: Figure, title: string): string {
  const rows = complete(all);
  const shares = sharesOf(rows);
  const series = CLAIM_POLICIES.map((name): Series => {
    const find = (share: number) =>
      rows.find((row) => row.policy === name && row.share === share)?.figures[figure];
    return {
      name,
      values: shares.map((share) => find(share)?.mean),
      bars: shares.map((share) => {
        const spread = find(share);
        return spread && spread.deviation / Math.sqrt(spread.count);
      }),
    };
  });
  const xTitle = 'budget as a share of the context; bars: standard error over documents';
  const format = figure === 'agreement' ? percent : three;
  return linePlot(shares.map(shareName), series, { title, xTitle, format });
}

/** Rows of cells that were measured on as many documents as any: others compare with nothing. */
function complete(rows: readonly Row[]): Row[] {
  const count = (row: Row): number => row.figures.lossIncrease?.count ?? 0;
  const most = Math.max(...rows.map(count));
  return rows.filter((row) => count(row) === most);
}

function policyPlot(rows: readonly Row[], share: number): string {
  const points = complete(rows)
    .filter((row) => row.share === share)
    .flatMap(({ policy, figures }) => {
      const spread = figures.lossIncrease;
      if (spread === undefined) return [];
      return [
        { name: policy, value: spread.mean, bar: spread.deviation / Math.sqrt(spread.count) },
      ];
    })
    .sort((a, b) => a.value - b.value);
  return pointPlot(points, {
    title: `Loss beside the full cache at ${shareName(share)}, nats per token`,
    xTitle: 'less is better; bars: standard error over documents',
    format: (value) => value.toFixed(2),
  });
}

function layerPlots(results: readonly CellResult[], base: Cell): Record<string, string> {
  const maps = CLAIM_POLICIES.map((policy) => {
    return { name: policy, matrix: meanMatrix(results, { ...base, policy }, 'attentionError') };
  }).filter(({ matrix }) => matrix.length > 0);
  const [first] = maps;
  if (first === undefined) return {};
  const series = maps.map(({ name, matrix }) => ({ name, values: matrix.map(mean) }));
  const where = `at ${shareName(base.share)}`;
  return {
    layers: linePlot(
      first.matrix.map((_, layer) => String(layer)),
      series,
      { title: `Error of attention outputs ${where}`, xTitle: 'layer', format: three },
    ),
    heads: headMaps(maps, {
      title: `Error of attention outputs ${where}, by layer (across) and head (down)`,
      xTitle: 'layer',
      format: three,
    }),
  };
}

function continuationSections(
  results: readonly CellResult[],
  rows: readonly Row[],
  documents: Documents,
): Section[] {
  const sections: Section[] = [];
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    if (row.part !== 'continuation' || row.documents !== documents) continue;
    const key = `${row.blockSize} ${row.prefill}`;
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  const full = rows.filter(
    (row) => row.part === 'continuation' && row.documents === documents && row.share === 1,
  );
  for (const [key, own] of groups) {
    const [first] = own;
    const share = commonShare(own);
    if (first === undefined || share === undefined) continue;
    const how = first.prefill === 'token' ? 'single tokens' : 'whole blocks';
    const title = `Continuation: blocks of ${first.blockSize}, ${how} at prefill`;
    const name = key.replace(' ', '-');
    const plots =
      documents === 'both'
        ? {
            [`loss-${name}`]: budgetPlot(own, 'lossIncrease', 'Loss beside the full cache, nats'),
            [`agreement-${name}`]: budgetPlot(own, 'agreement', 'Same greedy token'),
            [`policies-${name}`]: policyPlot(own, share),
            ...Object.fromEntries(
              Object.entries(layerPlots(results, { ...first, share })).map(([kind, plot]) => [
                `${kind}-${name}`,
                plot,
              ]),
            ),
          }
        : {};
    const text = `Documents: ${documents}. The spread is the standard deviation over documents.`;
    const hasFull = own.some((row) => row.share === 1);
    const table = figureTable([...(hasFull ? [] : full.slice(0, 1)), ...own]);
    sections.push({ title, text, table, plots });
  }
  return sections;
}

function scoresSection(results: readonly CellResult[]): Section[] {
  const scores = meanScores(results);
  if (scores === undefined) return [];
  const layers = scores.say.map((_, layer) => String(layer));
  const series = STATISTICS.map((name) => ({ name, values: scores.correlations[name] }));
  return [
    {
      title: 'What ranks say about attention',
      text:
        'Rank correlation of a number with the attention that tokens received from the first ' +
        'tokens of the continuation, without the first block: 1 where it orders tokens as ' +
        'attention does, below 0 where it drops what is read. Beside it, how much say each layer ' +
        "has in PagedEviction's mean over layers.",
      table: [
        ['number', 'mean correlation', 'layers below 0'],
        ...series.map(({ name, values }) => [
          name,
          mean(values).toFixed(3),
          `${values.filter((value) => value < 0).length} of ${values.length}`,
        ]),
      ],
      plots: {
        correlations: linePlot(layers, series, {
          title: 'Rank correlation with received attention',
          xTitle: 'layer',
          format: (value) => value.toFixed(1),
        }),
        say: linePlot(layers, [{ name: 'valueOverKeyNorm', values: scores.say }], {
          title: 'Share of the variance of the mean score',
          xTitle: 'layer',
          format: percent,
        }),
      },
    },
  ];
}

function retrievalSection(results: readonly CellResult[], rows: readonly Row[]): Section[] {
  const own = rows.filter((row) => row.part === 'retrieval' && row.documents === 'both');
  const share = commonShare(own);
  const [first] = own;
  if (first === undefined || share === undefined) return [];
  const names = own.filter((row) => row.share === share || row.share === 1);
  const series = names
    .filter(({ policy }) => policy === 'full' || CLAIM_POLICIES.includes(policy))
    .map((row) => ({ name: row.policy, values: keysByDepth(results, row, DEPTHS) }));
  const depths = Array.from({ length: DEPTHS }, (_, bin) => `${(100 * (bin + 0.5)) / DEPTHS} %`);
  return [
    {
      title: 'Retrieval',
      text:
        'Four pass keys and up to four facts of the text, asked after eviction: no policy knew ' +
        'the question. Chance is 0 for a pass key, and one in the number of facts for a fact.',
      table: figureTable(own),
      plots: {
        depths: linePlot(depths, series, {
          title: `Pass keys found at ${shareName(share)}`,
          xTitle: 'depth in the text',
          format: percent,
        }),
      },
    },
  ];
}

/** The report of one model's results; `undefined` where there are none. */
export function reportModel(results: readonly CellResult[]): ModelReport | undefined {
  const [first] = results;
  if (first === undefined) return undefined;
  const rows = summarizeCells(results);
  const comparisons = comparePaged(results, RIVALS);
  const decode = rows.filter((row) => row.part === 'decode' && row.documents === 'both');
  const refused = refusedTable(results);
  const sections: Section[] = [
    {
      title: 'PagedEviction beside its rivals',
      text:
        'At equal budget, on the same documents. "Better" and "worse" mean that the mean of the ' +
        'paired differences is beyond two of its standard errors.',
      table: comparisonTable(comparisons),
    },
    ...continuationSections(results, rows, 'both'),
    ...continuationSections(results, rows, 'seen'),
    ...continuationSections(results, rows, 'unseen'),
    ...scoresSection(results),
    ...retrievalSection(results, rows),
    ...(decode.length > 0
      ? [
          {
            title: 'Decode steps',
            text: 'One token a step, logits read back each time, one document.',
            table: figureTable(decode),
          },
        ]
      : []),
    ...(refused.length > 0
      ? [{ title: 'Not measured', text: 'Budgets that a policy refuses.', table: refused }]
      : []),
  ];
  const { model, driver, contextTokens } = first;
  return { model, driver, contextTokens, rows, comparisons, sections };
}
