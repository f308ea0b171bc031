/**
 * The closing table of the demo: one row per policy, the same columns on the terminal and the page.
 */
import type { ExpertReport, GenerationReport } from './report-data.js';

/** Bytes for people, with binary units. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? value.toFixed(0) : value.toFixed(1)} ${units[unit] ?? ''}`;
}

/** What the cache of experts did, in a sentence. */
export function expertSummary(experts: ExpertReport): string {
  const { budgetBytes, policy, prefetch, hits, misses, lowBit, evictions, loadedBytes } = experts;
  const { prefetched, prefetchHits } = experts;
  const rate = formatShare(hits / (hits + misses));
  const ahead = prefetch ? `, ${prefetchHits} of ${prefetched} read ahead were asked for` : '';
  const copies = lowBit > 0 ? `, ${lowBit} answered by low-bit copies` : '';
  return (
    `${policy} in ${formatBytes(budgetBytes)}: ${hits} hits, ${misses} misses (${rate})${ahead}` +
    `${copies}, ${evictions} evicted, ${formatBytes(loadedBytes)} brought in`
  );
}

function formatShare(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

/** Header and rows of the table, as text cells. */
export function summaryTable(report: GenerationReport): { header: string[]; rows: string[][] } {
  const hasExperts = report.experts !== undefined;
  return {
    header: [
      'policy',
      'KV peak',
      'blocks',
      'prefill tok/s',
      'decode tok/s',
      'perplexity',
      'buffers created',
      ...(hasExperts ? ['expert hits'] : []),
    ],
    rows: report.runs.map((run) => [
      run.policy,
      formatBytes(run.kvPeakBytes),
      String(run.peakBlocks),
      report.prefillTokensPerSecond.toFixed(1),
      run.decodeTokensPerSecond.toFixed(2),
      run.perplexity.toFixed(2),
      String(run.buffersCreated),
      ...(hasExperts ? [formatShare(run.expertHitRate ?? 0)] : []),
    ]),
  };
}

/** The table as aligned lines; the first column is left-aligned, numbers to the right. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const all = [header, ...rows];
  const widths = header.map((_, column) =>
    Math.max(...all.map((row) => (row[column] ?? '').length)),
  );
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  ');
  const rule = widths.map((width) => '-'.repeat(width)).join('  ');
  return [line(header), rule, ...rows.map(line)].join('\n');
}
