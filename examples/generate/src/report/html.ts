/**
 * The demo's report as one self-contained HTML file: no address is fetched when it is opened.
 *
 * Line plots are drawn by uPlot, whose script and style are inlined; the block map is plain SVG.
 * Data goes into the page as JSON with `<` escaped, so no text of a model can end the script.
 */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { blockMap } from './block-map.js';
import { languageGuard, pageScript } from './page-script.js';
import { PAGE_STYLE } from './page-style.js';
import type { GenerationReport } from './report-data.js';
import { expertSummary, formatBytes, summaryTable } from './table.js';

const require = createRequire(import.meta.url);

const escapeHtml = (text: string): string =>
  text.replace(
    /[&<>"]/g,
    (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] ?? c,
  );

/** The whole page. */
export async function renderHtml(report: GenerationReport): Promise<string> {
  const [script, style] = await Promise.all([
    readFile(require.resolve('uplot/dist/uPlot.iife.min.js'), 'utf8'),
    readFile(require.resolve('uplot/dist/uPlot.min.css'), 'utf8'),
  ]);
  const { header, rows } = summaryTable(report);
  const cells = (row: readonly string[], tag: 'th' | 'td'): string =>
    `<tr>${row.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join('')}</tr>`;
  const facts: [string, string][] = [
    ['Model', `${report.model} (${report.whyThisModel})`],
    ['Adapter', report.adapter],
    ['Text', report.textSource],
    ['Prompt', `${report.promptTokens} tokens, blocks of ${report.blockSize}`],
    ['KV budget', `${report.kvBudgetTokens} tokens for the policies that evict`],
    [
      'GPU budget',
      report.gpuBudgetBytes === undefined ? 'none' : formatBytes(report.gpuBudgetBytes),
    ],
    ...(report.experts === undefined
      ? []
      : [['Experts', expertSummary(report.experts)] satisfies [string, string]]),
    ['Total time', `${report.totalSeconds.toFixed(1)} s`],
  ];
  const data = JSON.stringify(report).replace(/</g, '\\u003c');
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>vramkit: one prompt, ${report.runs.length} KV policies</title>
<style>${style}\n${PAGE_STYLE}</style></head><body><main>
<h1>One prompt, ${report.runs.length} KV cache policies</h1>
<dl>${facts.map(([k, v]) => `<dt>${k}</dt><dd>${escapeHtml(v)}</dd>`).join('')}</dl>
<div class="scroll"><table class="summary">
${cells(header, 'th')}${rows.map((row) => cells(row, 'td')).join('')}
</table></div>
<p class="note">The prompt is prefilled once and forked for each policy. Perplexity is that of the
text that truly follows the excerpt; lower is better.</p>
<h2>Question and answers</h2>
<p class="question">${escapeHtml(report.question)}</p>
${report.runs
  .map((run) => `<h3>${escapeHtml(run.policy)}</h3><p class="answer">${escapeHtml(run.answer)}</p>`)
  .join('\n')}
<h2>KV bytes over decode steps</h2><div id="kv" class="plot"></div>
<h2>Which positions survive</h2>${blockMap(report)}
<h2>Device memory by kind</h2><div id="memory" class="plot"></div>
</main>
<script>${languageGuard}\n${script}</script>
<script>const report = ${data};\n${pageScript}</script>
</body></html>
`;
}
