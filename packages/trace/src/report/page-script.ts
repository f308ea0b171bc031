/** Script of a report: draws `plots`, which the page defines before it, with uPlot. */

/**
 * Runs before uPlot, which formats numbers for the browser's language as it loads: in the POSIX
 * locale a browser reports one that no formatter takes.
 */
export const LANGUAGE_GUARD = String.raw`
try { new Intl.NumberFormat(navigator.language); }
catch { Object.defineProperty(navigator, 'language', { value: 'en' }); }
`;

/** JavaScript text. */
export const PAGE_SCRIPT = String.raw`
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const colours = ['#0b6e99', '#c2571a', '#4d8f3a', '#8b5fbf', '#b8860b', '#5b6570'];
const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
const bytes = (v) => {
  if (v == null) return '';
  let at = 0;
  while (v >= 1024 && at < units.length - 1) { v /= 1024; at++; }
  return v.toFixed(v >= 100 || at === 0 ? 0 : 1) + ' ' + units[at];
};
const number = (v) => v == null ? '' : Number(v.toPrecision(4)).toString();
const bandHook = (bands) => (u) => {
  const seen = [...new Set(bands.map((b) => b.label))];
  u.ctx.save();
  for (const { from, to, label } of bands) {
    const left = Math.max(u.bbox.left, u.valToPos(from, 'x', true));
    const right = Math.min(u.bbox.left + u.bbox.width, u.valToPos(to, 'x', true));
    u.ctx.fillStyle = colours[(seen.indexOf(label) + 3) % 6] + '22';
    u.ctx.fillRect(left, u.bbox.top, right - left, u.bbox.height);
  }
  u.ctx.restore();
};
const bandKey = (bands) => {
  const key = document.createElement('p');
  key.className = 'key';
  [...new Set(bands.map((b) => b.label))].forEach((label, at) => {
    const swatch = document.createElement('span');
    swatch.style.background = colours[(at + 3) % 6] + '44';
    swatch.textContent = label;
    key.append(swatch);
  });
  return key;
};
plots.forEach((plot, index) => {
  const show = plot.bytes ? bytes : number;
  const axis = (extra) => ({ stroke: css('--soft'), grid: { stroke: css('--line'), width: 1 },
    ticks: { stroke: css('--line') }, ...extra });
  new uPlot({
    width: Math.min(960, document.querySelector('main').clientWidth - 40), height: 280,
    scales: { x: { time: false },
      y: { range: (u, min, max) => [Math.min(0, min), max * 1.08 || 1] } },
    axes: [axis({ label: plot.xLabel, labelSize: 22 }),
      axis({ size: 84, label: plot.yLabel, labelSize: 20, values: (u, v) => v.map(show),
        ...(plot.bytes && { incrs: [...Array(44).keys()].map((n) => 2 ** n) }) })],
    series: [{ label: plot.xLabel, value: (u, v) => number(v) }, ...plot.series.map((s, i) => ({
      label: s.label, stroke: colours[i % 6], width: s.dots ? 0 : 1.8,
      paths: s.dots ? () => null : plot.bytes ? uPlot.paths.stepped({ align: 1 }) : undefined,
      points: { show: s.dots || plot.x.length < 40, size: 7 },
      fill: plot.stacked ? colours[i % 6] + '55' : undefined, value: (u, v) => show(v) }))],
    bands: plot.stacked
      ? plot.series.slice(1).map((_, i) => ({ series: [i + 1, i + 2] })) : [],
    hooks: plot.bands ? { drawClear: [bandHook(plot.bands)] } : {},
  }, [plot.x, ...plot.series.map((s) => s.values)], document.getElementById('plot' + index));
  if (plot.bands?.length) document.getElementById('plot' + index).append(bandKey(plot.bands));
});
`;
