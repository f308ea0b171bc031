/**
 * All results of a run as one page that fetches nothing: a table for each benchmark, each figure
 * with its spread, its driver, and its peers in the same run. A ratio above 1 says that ours is the
 * better one.
 */
import { formatFigure, type BenchResult } from './report.js';

/** One benchmark of a run. */
export interface SuiteRun {
  readonly name: string;
  readonly question: string;
  readonly seconds: number;
  readonly results: readonly BenchResult[];
  /** Why it failed; absent where it ran through. */
  readonly error?: string;
}

/** A run of all of them: what `bench-results.json` holds. */
export interface BenchRun {
  readonly machine: {
    readonly processor: string;
    readonly processors: number;
    readonly memoryGib: number;
    readonly system: string;
    readonly node: string;
  };
  /** ISO 8601, UTC. */
  readonly startedAt: string;
  readonly seconds: number;
  readonly quick: boolean;
  readonly suites: readonly SuiteRun[];
}

function escapeHtml(text: string): string {
  const names: Readonly<Record<string, string>> = { '&': 'amp', '<': 'lt', '>': 'gt', '"': 'quot' };
  return text.replace(/[&<>"]/g, (each) => `&${names[each] ?? ''};`);
}

/** Half the range of the runs in percent of the median. */
export function spreadPercent({ ours, min, max }: Pick<BenchResult, 'ours' | 'min' | 'max'>) {
  return ours === 0 ? 0 : (50 * (max - min)) / Math.abs(ours);
}

function ratioCell(ratio: number | undefined): string {
  if (ratio === undefined) return '<td></td>';
  const kind = ratio >= 1 ? 'ahead' : 'behind';
  return `<td class="${kind}">${formatFigure(ratio)}</td>`;
}

/** One line for each peer; a figure without one has one line. */
function resultRows(result: BenchResult): string {
  const peers = Object.entries(result.peers);
  const lines = peers.length === 0 ? [['', undefined] as const] : peers;
  const own =
    `<th scope="row" rowspan="${lines.length}">${escapeHtml(result.case)}</th>` +
    `<td rowspan="${lines.length}">${escapeHtml(result.metric)}</td>` +
    `<td rowspan="${lines.length}" class="figure">${formatFigure(result.ours)} ` +
    `<span>${escapeHtml(result.unit)}</span></td>` +
    `<td rowspan="${lines.length}">±${spreadPercent(result).toFixed(0)} %, ` +
    `${result.runs} runs</td>` +
    `<td rowspan="${lines.length}">${escapeHtml(result.driver)}</td>`;
  return lines
    .map(([peer, value], index) => {
      const figure = value === undefined ? '' : formatFigure(value);
      const rival = `<td>${escapeHtml(peer)}</td><td class="figure">${figure}</td>`;
      return `<tr>${index === 0 ? own : ''}${rival}${ratioCell(result.ratios[peer])}</tr>`;
    })
    .join('\n');
}

const HEADER = ['case', 'figure', 'ours', 'spread', 'driver', 'peer', 'its figure', 'ratio'];

const STYLE = `
:root { color-scheme: light dark; --edge: #8884; --ahead: #1a7f37; --behind: #b35900; }
@media (prefers-color-scheme: dark) { :root { --ahead: #57c46f; --behind: #f0a05a; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 76rem; padding: 1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }
dt { opacity: 0.7; } dd { margin: 0; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.87em; width: 100%; }
th, td { border-bottom: 1px solid var(--edge); padding: 0.3rem 0.6rem; text-align: left;
  vertical-align: top; }
tbody th { font-weight: 500; min-width: 11rem; } td.figure { white-space: nowrap; }
td span { opacity: 0.7; }
.ahead { color: var(--ahead); font-weight: 600; }
.behind { color: var(--behind); font-weight: 600; }
`;

/** The whole page. */
export function renderPage({ machine, startedAt, seconds, quick, suites }: BenchRun): string {
  const facts: [string, string][] = [
    ['machine', `${machine.processors} x ${machine.processor}, ${machine.memoryGib} GiB`],
    ['system', `${machine.system}, node ${machine.node}`],
    ['started', `${startedAt}, took ${Math.round(seconds)} s${quick ? ', quick' : ''}`],
  ];
  const sections = suites.map(({ name, question, results, error, seconds: took }) => {
    const rows = results.map(resultRows).join('\n');
    const head = HEADER.map((each) => `<th scope="col">${each}</th>`).join('');
    const table = `<div class="scroll"><table><thead><tr>${head}</tr></thead>
<tbody>${rows}</tbody></table></div>`;
    const failed = error === undefined ? '' : `<p class="behind">Failed: ${escapeHtml(error)}</p>`;
    return `<section><h2>${escapeHtml(name)}</h2>
<p>${escapeHtml(question)} <small>(${took.toFixed(0)} s)</small></p>${failed}
${rows === '' ? '' : table}</section>`;
  });
  const list = facts.map(([name, fact]) => `<dt>${name}</dt><dd>${escapeHtml(fact)}</dd>`).join('');
  return /* html */ `<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>vramkit: benchmarks</title><style>${STYLE}</style></head><body>
<h1>Benchmarks</h1><dl>${list}</dl>
<p>Figures are medians. Ours and its peers ran in turn, in one run; a ratio above 1 says that ours
is better. Software drivers run on the processor: a figure there says nothing about a GPU.</p>
${sections.join('\n')}
</body></html>
`;
}
