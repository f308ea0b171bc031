/** The lanes of a timeline as an SVG: one row a lane, one bar a span, its name in a tooltip. */
import type { TraceEvent } from '@vramkit/core';
import { laneNames, laneSpans, timeRange } from '../spans.js';
import { escapeHtml } from './escape.js';

const WIDTH = 960;
const LEFT = 110;
const ROW = 26;
/** Bars drawn at most, the longest ones. */
const MAX_BARS = 4000;

/** SVG text. */
export function laneFigure(events: readonly TraceEvent[]): string {
  const spans = laneSpans(events);
  const lanes = laneNames(spans);
  const { fromMs, toMs } = timeRange(events);
  const scale = (WIDTH - LEFT - 10) / Math.max(toMs - fromMs, 1e-9);
  const x = (ms: number): number => LEFT + (ms - fromMs) * scale;
  const shown = [...spans]
    .sort((a, b) => b.endMs - b.startMs - (a.endMs - a.startMs))
    .slice(0, MAX_BARS);
  const bars = shown.map(({ lane, label, startMs, endMs }) => {
    const row = lanes.indexOf(lane);
    const width = Math.max(0.5, (endMs - startMs) * scale - 0.3).toFixed(1);
    const title = `${escapeHtml(label)}: ${(endMs - startMs).toFixed(3)} ms`;
    return (
      `<rect class="lane${row % 6}" x="${x(startMs).toFixed(1)}" y="${row * ROW + 4}" ` +
      `width="${width}" height="${ROW - 8}"><title>${title}</title></rect>`
    );
  });
  const names = lanes.map(
    (lane, row) =>
      `<text x="${LEFT - 8}" y="${row * ROW + 18}" text-anchor="end">${escapeHtml(lane)}</text>`,
  );
  const height = lanes.length * ROW + 24;
  const end = `${(toMs - fromMs).toFixed(1)} ms`;
  return `<svg class="lanes" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="lanes">
${names.join('\n')}
${bars.join('\n')}
<text x="${LEFT}" y="${height - 6}">0</text>
<text x="${WIDTH - 10}" y="${height - 6}" text-anchor="end">${end}</text>
</svg>`;
}
