/** The study's tables as rows of text, for Markdown and for the page. */
import type { CellResult } from '../results.js';
import { verdict, type Comparison, type Figure, type Row, type Spread } from '../summary.js';

/** A table: the first row names the columns. */
export type Table = readonly (readonly string[])[];

const plain = (digits: number) => (value: number) => value.toFixed(digits);
const percent = (value: number): string => `${(100 * value).toFixed(1)} %`;

const COLUMNS: Readonly<Record<Row['part'], readonly (readonly [Figure, string, Format])[]>> = {
  continuation: [
    ['perplexity', 'perplexity', plain(2)],
    ['lossIncrease', 'loss increase, nats', plain(3)],
    ['agreement', 'same token', percent],
    ['divergence', 'KL, nats', plain(3)],
    ['attentionError', 'attention error', plain(3)],
    ['keptMass', 'attention kept', percent],
    ['kvPeakBytes', 'KV, MB', (value) => (value / 1e6).toFixed(2)],
  ],
  retrieval: [
    ['passkeys', 'pass keys found', percent],
    ['passkeyLogProbability', 'log-probability of key', plain(2)],
    ['facts', 'facts preferred', percent],
  ],
  scores: [],
  decode: [
    ['tokensPerSecond', 'tokens/s', plain(2)],
    ['evictionShare', 'time of eviction', percent],
    ['kvPeakBytes', 'KV, MB', (value) => (value / 1e6).toFixed(2)],
  ],
};
type Format = (value: number) => string;

/** Figures without a spread worth reading: sizes are equal, perplexity's is that of the loss. */
const BARE: readonly Figure[] = ['perplexity', 'kvPeakBytes'];

/** The name of a share: `1/4`, or `full`. */
export function shareName(share: number): string {
  return share === 1 ? 'full' : `1/${Math.round(1 / share)}`;
}

function shown(name: Figure, spread: Spread | undefined, format: Format): string {
  if (spread === undefined) return '-';
  const value = format(spread.mean);
  return BARE.includes(name) || spread.count < 2 ? value : `${value} ± ${format(spread.deviation)}`;
}

/** Rows of one part, block size and granularity; the best first within a budget. */
export function figureTable(rows: readonly Row[]): Table {
  const [first] = rows;
  if (first === undefined) return [];
  const columns = COLUMNS[first.part];
  const order = (row: Row): number =>
    row.figures.lossIncrease?.mean ?? -(row.figures.passkeys?.mean ?? 0);
  const sorted = [...rows].sort((a, b) => b.share - a.share || order(a) - order(b));
  return [
    ['budget', 'policy', ...columns.map(([, title]) => title), 'documents'],
    ...sorted.map((row) => [
      shareName(row.share),
      row.policy,
      ...columns.map(([name, , format]) => shown(name, row.figures[name], format)),
      String(Math.max(...Object.values(row.figures).map(({ count }) => count))),
    ]),
  ];
}

/** PagedEviction beside its rivals. */
export function comparisonTable(comparisons: readonly Comparison[]): Table {
  const signed = (format: Format, { mean, deviation }: Spread): string =>
    `${mean < 0 ? '-' : '+'}${format(Math.abs(mean))} ± ${format(deviation)}`;
  return [
    [
      ...['documents', 'block', 'prefill by', 'budget', 'PagedEviction beside'],
      ...['rival loss less ours, nats', 'loss', 'our agreement less', 'agreement', 'not worse on'],
    ],
    ...comparisons.map((each) => [
      `${each.documents} (${each.loss.count})`,
      String(each.blockSize),
      each.prefill,
      shareName(each.share),
      each.rival,
      signed(plain(3), each.loss),
      verdict(each.loss),
      signed(percent, each.agreement),
      verdict(each.agreement),
      `${each.wins} of ${each.loss.count}`,
    ]),
  ];
}

/** Cells without figures, and why. */
export function refusedTable(results: readonly CellResult[]): Table {
  const reasons = new Set(results.flatMap(({ refused }) => refused ?? []));
  return reasons.size === 0 ? [] : [['not measured'], ...[...reasons].map((reason) => [reason])];
}

/** A table in Markdown. */
export function toMarkdown([head, ...rows]: Table): string {
  if (head === undefined) return '';
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}
