/**
 * The page's own script: draws the two line plots from `report` with uPlot. Runs in the browser.
 */

/**
 * Runs before uPlot, which formats numbers for the browser's language as it loads: in the POSIX
 * locale a browser reports one that no formatter takes.
 */
export const languageGuard = String.raw`
try { new Intl.NumberFormat(navigator.language); }
catch { Object.defineProperty(navigator, 'language', { value: 'en' }); }
`;

/** JavaScript text; expects the globals `report` and `uPlot`. */
export const pageScript = `
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const palette = ['#0b6e99', '#d9622b', '#3a923a', '#8e5bb5', '#b8860b', '#c23b5a'];
const dark = matchMedia('(prefers-color-scheme: dark)').matches;
const colors = dark ? ['#4fb3dd', '#f2935f', '#77c577', '#bf95e0', '#dcb64f', '#ee7f98'] : palette;
const bytes = (v) => {
  if (v == null) return '';
  const units = ['B', 'KiB', 'MiB', 'GiB'];
  let u = 0;
  while (v >= 1024 && u < 3) { v /= 1024; u++; }
  return (v >= 100 || u === 0 ? v.toFixed(0) : v.toFixed(1)) + ' ' + units[u];
};
const width = () => Math.min(960, document.querySelector('main').clientWidth - 4);
const axis = (extra) => ({ stroke: css('--soft'), grid: { stroke: css('--line'), width: 1 },
  ticks: { stroke: css('--line') }, ...extra });
const draw = (id, xLabel, series, data, bands, height) => new uPlot({
  width: width(), height, bands,
  scales: { x: { time: false }, y: { range: (u, min, max) => [0, max * 1.08 || 1] } },
  axes: [axis({ label: xLabel, labelSize: 22 }), axis({ size: 84, values: (u, v) => v.map(bytes),
    incrs: [...Array(44).keys()].map((n) => 2 ** n) })],
  series: [{ label: xLabel }, ...series],
}, data, document.getElementById(id));

const steps = Math.max(...report.runs.map((r) => r.kvBytesByStep.length));
draw('kv', 'decode step',
  report.runs.map((r, i) => ({ label: r.policy, stroke: colors[i % 6], width: 2,
    points: { show: false }, dash: i === 0 ? [] : [6 + 2 * i, 3], value: (u, v) => bytes(v) })),
  [[...Array(steps).keys()],
   ...report.runs.map((r) => [...Array(steps).keys()].map((s) => r.kvBytesByStep[s] ?? null))],
  [], 280);

const kinds = Object.keys(report.memory[0]?.byKind ?? {})
  .filter((k) => report.memory.some((m) => m.byKind[k] > 0));
const stacked = kinds.map((_, i) =>
  report.memory.map((m) => kinds.slice(i).reduce((sum, k) => sum + m.byKind[k], 0)));
draw('memory', 'seconds',
  kinds.map((k, i) => ({ label: k, stroke: colors[i % 6], fill: colors[i % 6] + '66', width: 1.5,
    points: { show: false },
    value: (u, v, si, at) => at == null ? '' : bytes(report.memory[at].byKind[k]) })),
  [report.memory.map((m) => m.timeMs / 1000), ...stacked],
  kinds.slice(1).map((_, i) => ({ series: [i + 1, i + 2] })), 320);
`;
