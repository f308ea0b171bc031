/**
 * The block map: one strip per policy, one column per block of positions, shaded by how many of its
 * positions are still cached at the end.
 */
import type { GenerationReport, PolicyRun } from './report-data.js';

const WIDTH = 960;
const LEFT = 130;
const ROW = 34;

/** Share of cached positions per block of `blockSize` positions, 0 to 1. */
export function survivingShares(run: PolicyRun, blockSize: number): number[] {
  const counts = new Array<number>(Math.ceil(run.tokenCount / blockSize)).fill(0);
  for (const position of run.survivors) {
    const block = Math.floor(position / blockSize);
    counts[block] = (counts[block] ?? 0) + 1;
  }
  return counts.map((count, block) => {
    const size = Math.min(blockSize, run.tokenCount - block * blockSize);
    return count / Math.max(1, size);
  });
}

/** SVG of the map. */
export function blockMap(report: GenerationReport): string {
  const longest = Math.max(1, ...report.runs.map((run) => run.tokenCount));
  const x = (position: number): number => LEFT + (position / longest) * (WIDTH - LEFT - 10);
  const strips = report.runs.map((run, row) => {
    const top = 10 + row * ROW;
    const cells = survivingShares(run, report.blockSize).map((share, block) => {
      const from = x(block * report.blockSize);
      const to = x(Math.min(run.tokenCount, (block + 1) * report.blockSize));
      const percent = (share * 100).toFixed(0);
      const width = Math.max(0.5, to - from - 0.6).toFixed(1);
      return (
        `<rect x="${from.toFixed(1)}" y="${top}" width="${width}" ` +
        `height="22" fill-opacity="${(0.06 + 0.94 * share).toFixed(2)}">` +
        `<title>positions from ${block * report.blockSize}: ${percent} % cached</title></rect>`
      );
    });
    const name = `<text x="${LEFT - 10}" y="${top + 16}" text-anchor="end">${run.policy}</text>`;
    return name + cells.join('');
  });
  const bottom = 10 + report.runs.length * ROW;
  const promptEnd = x(report.promptTokens);
  const height = bottom + 26;
  return `<svg class="map" viewBox="0 0 ${WIDTH} ${height}" role="img"
aria-label="cached positions by policy">${strips.join('\n')}
<line x1="${promptEnd}" x2="${promptEnd}" y1="4" y2="${bottom}"/>
<text x="${LEFT}" y="${bottom + 16}">position 0</text>
<text x="${promptEnd - 6}" y="${bottom + 16}" text-anchor="end">end of prompt,
${report.promptTokens}</text>
</svg>`;
}
