/**
 * A report as one self-contained HTML file: nothing is fetched when it is opened.
 *
 * Plots are drawn by uPlot, whose script and style the caller hands in as text, so that this
 * package reads no files and runs in a page too.
 */
import type { TraceEvent } from '@vramkit/core';
import { escapeHtml, scriptJson } from './escape.js';
import {
  memoryPlot,
  occupancyTable,
  overlapTable,
  phaseTable,
  transferPlot,
  type ReportTable,
} from './figures.js';
import { laneFigure } from './lanes.js';
import { LANGUAGE_GUARD, PAGE_SCRIPT } from './page-script.js';
import { PAGE_STYLE } from './page-style.js';
import { stack, type Plot } from './plot.js';

/** uPlot's `uPlot.iife.min.js` and `uPlot.min.css`, as text. */
export interface PlotLibrary {
  readonly script: string;
  readonly style: string;
}

/** What a report shows. */
export interface ReportOptions {
  /** Heading of the page. */
  readonly title: string;
  /** Facts under the heading, by name. Default: none. */
  readonly facts?: Readonly<Record<string, string>>;
  /** Parameters, for bytes per parameter. Default: bytes are shown as they are. */
  readonly parameterCount?: number;
  /** Plots of the caller's, such as sweeps. Default: none. */
  readonly plots?: readonly Plot[];
  /** Tables of the caller's. Default: none. */
  readonly tables?: readonly ReportTable[];
}

/** The whole page. */
export function renderReport(
  events: readonly TraceEvent[],
  library: PlotLibrary,
  options: ReportOptions,
): string {
  const own = events.length > 0;
  const overTime = own ? [memoryPlot(events), transferPlot(events)] : [];
  const plots = [...overTime, ...(options.plots ?? [])]
    .filter(({ series, x }) => series.length > 0 && x.length > 0)
    .map((plot) => (plot.stacked === true ? { ...plot, series: stack(plot.series) } : plot));
  const tables = [
    ...(own
      ? [phaseTable(events, options.parameterCount), occupancyTable(events), overlapTable(events)]
      : []),
    ...(options.tables ?? []),
  ].filter(({ rows }) => rows.length > 0);
  const facts = Object.entries(options.facts ?? {}).map(
    ([name, fact]) => `<dt>${escapeHtml(name)}</dt><dd>${escapeHtml(fact)}</dd>`,
  );
  const title = escapeHtml(options.title);
  const sections = plots.map(
    ({ title: name }, index) => `<h2>${escapeHtml(name)}</h2><div id="plot${index}"></div>`,
  );
  return /* html */ `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${title}</title><style>${library.style}\n${PAGE_STYLE}</style></head><body><main>
<h1>${title}</h1><dl>${facts.join('')}</dl>
${tables.map(renderTable).join('\n')}
${own ? `<h2>Lanes</h2>${laneFigure(events)}` : ''}
${sections.join('\n')}
</main><script>${LANGUAGE_GUARD}\n${library.script}</script>
<script>const plots = ${scriptJson(plots)};\n${PAGE_SCRIPT}</script></body></html>
`;
}

function renderTable({ title, header, rows }: ReportTable): string {
  const line = (cells: readonly string[], tag: string): string =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join('')}</tr>`;
  const body = rows.map((row) => line(row, 'td')).join('');
  const table = `<table>${line(header, 'th')}${body}</table>`;
  return `<h2>${escapeHtml(title)}</h2><div class="scroll">${table}</div>`;
}
