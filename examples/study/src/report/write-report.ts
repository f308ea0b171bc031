/**
 * The study's report in three forms: figures as JSON, tables as Markdown, and one page of HTML that
 * fetches nothing. Plots are files of their own beside them, too.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PAGE_STYLE } from './page-style.js';
import { escapeText } from './plots.js';
import type { ModelReport, Section } from './sections.js';
import { toMarkdown, type Table } from './tables.js';

const TITLE = 'KV eviction policies beside the full cache';

function introduction({ driver, contextTokens }: ModelReport): string {
  return (
    `A context of ${contextTokens} tokens is read once per document; each policy gets a fork of ` +
    'it, cuts it to its budget, and then reads the true continuation, dropping a block whenever ' +
    `one has filled. Driver: ${driver}. Losses are nats per token; times are of this driver.`
  );
}

/** The tables as Markdown. */
export function renderMarkdown(reports: readonly ModelReport[]): string {
  const parts = reports.flatMap((report) => [
    `## ${report.model}\n`,
    `${introduction(report)}\n`,
    ...report.sections.flatMap(({ title, text, table }) => [
      `### ${title}\n`,
      `${text}\n`,
      ...(table === undefined ? [] : [`${toMarkdown(table)}\n`]),
    ]),
  ]);
  return [`# ${TITLE}\n`, ...parts].join('\n');
}

function htmlTable([head = [], ...rows]: Table): string {
  const row = (cells: readonly string[], tag: 'th' | 'td'): string =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeText(cell)}</${tag}>`).join('')}</tr>`;
  const body = rows.map((cells) => row(cells, 'td')).join('\n');
  return `<div class="scroll"><table>\n${row(head, 'th')}\n${body}\n</table></div>`;
}

function htmlSection({ title, text, table, plots = {} }: Section): string {
  const figures = Object.values(plots).map((plot) => `<figure>${plot}</figure>`);
  return `<h3>${escapeText(title)}</h3>
<p>${escapeText(text)}</p>
<div class="plots">${figures.join('\n')}</div>
${table === undefined ? '' : htmlTable(table)}`;
}

/** The page. */
export function renderPage(reports: readonly ModelReport[]): string {
  const models = reports.map(
    (report) => `<h2>${escapeText(report.model)}</h2>
<p>${escapeText(introduction(report))}</p>
${report.sections.map(htmlSection).join('\n')}`,
  );
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${TITLE}</title><style>${PAGE_STYLE}</style></head><body><main>
<h1>${TITLE}</h1>
${models.join('\n')}
</main></body></html>
`;
}

/** Writes `study.json`, `study.md`, `study.html` and `plots/`; gives the page's path. */
export async function writeReport(
  folder: string,
  reports: readonly ModelReport[],
): Promise<string> {
  await mkdir(join(folder, 'plots'), { recursive: true });
  const figures = reports.map(({ sections: _, ...rest }) => rest);
  await writeFile(join(folder, 'study.json'), `${JSON.stringify(figures, undefined, 1)}\n`);
  await writeFile(join(folder, 'study.md'), renderMarkdown(reports));
  for (const { model, sections } of reports) {
    const plots = sections.flatMap((section) => Object.entries(section.plots ?? {}));
    for (const [name, plot] of plots) {
      const file = `${model}-${name}.svg`.replaceAll(/[^\w.-]/g, '_');
      await writeFile(join(folder, 'plots', file), plot);
    }
  }
  const page = join(folder, 'study.html');
  await writeFile(page, renderPage(reports));
  return page;
}
