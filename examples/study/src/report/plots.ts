/**
 * Plots as SVG text, in colours that read on light and on dark paper: lines over budgets or layers,
 * points with their spread, and maps of layers and heads. Nothing is fetched, no script runs.
 */

/** A line with a name. */
export interface Series {
  readonly name: string;
  readonly values: readonly (number | undefined)[];
  /** Half lengths of bars around the values. Default: none. */
  readonly bars?: readonly (number | undefined)[];
}

/** What a plot is of. */
export interface PlotText {
  /** Above the plot. */
  readonly title: string;
  /** Below the axis. */
  readonly xTitle: string;
  readonly format: (value: number) => string;
}

const GREY = '#8a949e';
const COLOURS = [
  '#1f8a70',
  '#d9622b',
  '#4a7fc1',
  '#a566c4',
  '#b8860b',
  '#c23b5a',
  '#6b7a3a',
  '#2aa3b5',
  '#7d5a3c',
];

/** Colour of the `index`-th series. */
export function colourOf(index: number): string {
  return COLOURS[index % COLOURS.length] ?? GREY;
}

/** Text for SVG and HTML. */
export const escapeText = (text: string): string =>
  text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
const at = (value: number): string => value.toFixed(1);

function svg(width: number, height: number, title: string, parts: readonly string[]): string {
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" ` +
    `font-family="sans-serif" font-size="13" fill="${GREY}">\n` +
    `<title>${escapeText(title)}</title>\n${parts.join('\n')}\n</svg>\n`
  );
}

function text(x: number, y: number, content: string, anchor = 'start', colour = GREY): string {
  const attributes = `x="${at(x)}" y="${at(y)}" text-anchor="${anchor}" fill="${colour}"`;
  return `<text ${attributes}>${escapeText(content)}</text>`;
}

function rule(x: number, y: number, toX: number, toY: number, colour = GREY, width = 0.5): string {
  const path = `M${at(x)} ${at(y)}L${at(toX)} ${at(toY)}`;
  return `<path d="${path}" stroke="${colour}" stroke-width="${width}" fill="none"/>`;
}

function circle(x: number, y: number, radius: number, colour: string): string {
  return `<circle cx="${at(x)}" cy="${at(y)}" r="${radius}" fill="${colour}"/>`;
}

/** Round values from at most `least` to at least `most`, about five. */
export function ticks(least: number, most: number): number[] {
  const span = most - least || 1;
  const power = 10 ** Math.floor(Math.log10(span / 4));
  const step = power * ([1, 2, 5, 10].find((n) => n * power >= span / 5) ?? 10);
  const first = Math.floor(least / step + 1e-9);
  const count = Math.ceil(most / step - 1e-9) - first;
  return Array.from({ length: count + 1 }, (_, i) => (first + i) * step);
}

const WIDTH = 680;
const LEFT = 64;
const RIGHT = 16;

/** Lines over the labels of `x`; the legend is below. */
export function linePlot(x: readonly string[], series: readonly Series[], of: PlotText): string {
  const points = series.flatMap(({ values, bars }) =>
    values.flatMap((value, i) =>
      value === undefined ? [] : [value - (bars?.[i] ?? 0), value + (bars?.[i] ?? 0)],
    ),
  );
  const scale = ticks(Math.min(0, ...points), Math.max(0, ...points));
  const [least = 0] = scale;
  const most = scale[scale.length - 1] ?? 1;
  const [top, bottom] = [34, 274];
  const xOf = (i: number): number =>
    LEFT + 20 + (i * (WIDTH - LEFT - RIGHT - 40)) / Math.max(1, x.length - 1);
  const yOf = (value: number): number =>
    bottom - ((value - least) * (bottom - top)) / (most - least);
  const every = Math.ceil(x.length / 16);
  const legendX = (i: number): number => LEFT + (i % 3) * 204;
  const legendY = (i: number): number => bottom + 62 + Math.floor(i / 3) * 20;
  const lines = series.map(({ values, bars }, index) => {
    const colour = colourOf(index);
    // A little apart, so that bars of the same place can be told from each other.
    const shift = bars === undefined ? 0 : (index - (series.length - 1) / 2) * 4;
    const shown = values.flatMap((value, i) => (value === undefined ? [] : [[i, value] as const]));
    const path = shown.map(([i, value]) => `${at(xOf(i) + shift)},${at(yOf(value))}`).join(' ');
    const marks = shown.map(([i, value]) => {
      const half = bars?.[i] ?? 0;
      const bar = rule(
        xOf(i) + shift,
        yOf(value - half),
        xOf(i) + shift,
        yOf(value + half),
        colour,
        1,
      );
      const dot = circle(xOf(i) + shift, yOf(value), 2.6, colour);
      return half > 0 ? `${bar}${dot}` : dot;
    });
    const stroke = `fill="none" stroke="${colour}" stroke-width="1.8"`;
    return `<polyline points="${path}" ${stroke}/>${marks.join('')}`;
  });
  return svg(WIDTH, legendY(series.length - 1) + 14, of.title, [
    text(LEFT, 18, of.title),
    ...scale.map((value) => rule(LEFT, yOf(value), WIDTH - RIGHT, yOf(value))),
    ...scale.map((value) => text(LEFT - 8, yOf(value) + 4, of.format(value), 'end')),
    ...x.flatMap((label, i) =>
      i % every === 0 ? [text(xOf(i), bottom + 20, label, 'middle')] : [],
    ),
    text((LEFT + WIDTH) / 2, bottom + 40, of.xTitle, 'middle'),
    ...lines,
    ...series.flatMap(({ name }, i) => [
      rule(legendX(i), legendY(i) - 4, legendX(i) + 18, legendY(i) - 4, colourOf(i), 3),
      text(legendX(i) + 24, legendY(i), name),
    ]),
  ]);
}

/** Points of one kind over numbers, joined in their order along x. */
export interface Curve {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
}

/** Round numbers of a logarithmic scale, from below `least` to above `most`; evenly where near. */
export function logTicks(least: number, most: number): number[] {
  if (most < 2 * least) return ticks(least, most);
  const all: number[] = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power++) {
    for (const step of [1, 1.5, 2, 3, 5, 7]) all.push(step * 10 ** power);
  }
  const first = all.findLastIndex((tick) => tick <= least * (1 + 1e-9));
  const last = all.findIndex((tick) => tick >= most * (1 - 1e-9));
  return all.slice(Math.max(0, first), last + 1);
}

/** Curves over numbers, the values on a logarithmic scale; the legend is below. */
export function curvePlot(curves: readonly Curve[], of: PlotText): string {
  const points = curves.flatMap((curve) => curve.points);
  const xs = ticks(Math.min(...points.map(([x]) => x)), Math.max(...points.map(([x]) => x)));
  const ys = logTicks(Math.min(...points.map(([, y]) => y)), Math.max(...points.map(([, y]) => y)));
  const [top, bottom] = [34, 314];
  const [firstX = 0, lastX = 1] = [xs[0], xs.at(-1)];
  const [firstY = 1, lastY = 2] = [ys[0], ys.at(-1)];
  const xOf = (x: number): number =>
    LEFT + ((x - firstX) * (WIDTH - LEFT - RIGHT)) / (lastX - firstX);
  const yOf = (y: number): number =>
    bottom - ((bottom - top) * Math.log(y / firstY)) / Math.log(lastY / firstY);
  const legendX = (i: number): number => LEFT + (i % 3) * 204;
  const legendY = (i: number): number => bottom + 62 + Math.floor(i / 3) * 20;
  return svg(WIDTH, legendY(curves.length - 1) + 14, of.title, [
    text(LEFT, 18, of.title),
    ...ys.map((y) => rule(LEFT, yOf(y), WIDTH - RIGHT, yOf(y))),
    ...ys.map((y) => text(LEFT - 8, yOf(y) + 4, of.format(y), 'end')),
    ...xs.map((x) => text(xOf(x), bottom + 20, String(Number(x.toFixed(6))), 'middle')),
    text((LEFT + WIDTH) / 2, bottom + 40, of.xTitle, 'middle'),
    ...curves.map((curve, index) => {
      const colour = colourOf(index);
      const sorted = [...curve.points].sort(([a], [b]) => a - b);
      const path = sorted.map(([x, y]) => `${at(xOf(x))},${at(yOf(y))}`).join(' ');
      const dots = sorted.map(([x, y]) => circle(xOf(x), yOf(y), 3, colour)).join('');
      const stroke = `fill="none" stroke="${colour}" stroke-width="1.6"`;
      return `<polyline points="${path}" ${stroke}/>${dots}`;
    }),
    ...curves.flatMap(({ name }, i) => [
      rule(legendX(i), legendY(i) - 4, legendX(i) + 18, legendY(i) - 4, colourOf(i), 3),
      text(legendX(i) + 24, legendY(i), name),
    ]),
  ]);
}

/** One point with a bar per name, in the given order. */
export function pointPlot(
  points: readonly { readonly name: string; readonly value: number; readonly bar: number }[],
  of: PlotText,
): string {
  const left = 150;
  const ends = points.flatMap(({ value, bar }) => [value - bar, value + bar]);
  const scale = ticks(Math.min(0, ...ends), Math.max(0, ...ends));
  const [least = 0] = scale;
  const most = scale[scale.length - 1] ?? 1;
  const xOf = (value: number): number =>
    left + ((value - least) * (WIDTH - left - RIGHT - 20)) / (most - least);
  const yOf = (i: number): number => 44 + i * 24;
  const bottom = yOf(points.length);
  return svg(WIDTH, bottom + 44, of.title, [
    text(16, 18, of.title),
    ...scale.map((value) => rule(xOf(value), 30, xOf(value), bottom - 8)),
    ...scale.map((value) => text(xOf(value), bottom + 8, of.format(value), 'middle')),
    text((left + WIDTH) / 2, bottom + 30, of.xTitle, 'middle'),
    ...points.flatMap(({ name, value, bar }, i) => [
      text(left - 12, yOf(i) + 4, name, 'end'),
      rule(xOf(value - bar), yOf(i), xOf(value + bar), yOf(i), colourOf(2), 1.5),
      circle(xOf(value), yOf(i), 4, colourOf(2)),
    ]),
  ]);
}

/** Maps of [layers][heads], one per name, with one scale: the fuller the colour, the larger. */
export function headMaps(
  maps: readonly { readonly name: string; readonly matrix: readonly (readonly number[])[] }[],
  of: PlotText,
): string {
  const layers = maps[0]?.matrix.length ?? 0;
  const heads = maps[0]?.matrix[0]?.length ?? 0;
  const cell = Math.min(18, Math.floor((WIDTH - LEFT - RIGHT) / Math.max(1, layers)));
  const most = Math.max(...maps.flatMap(({ matrix }) => matrix.flat()), 1e-9);
  const yOf = (map: number): number => 56 + map * (heads * cell + 34);
  const height = yOf(maps.length) + 8;
  const every = Math.ceil(layers / 16);
  const size = `width="${cell - 1}" height="${cell - 1}"`;
  return svg(WIDTH, height, of.title, [
    text(16, 18, of.title),
    ...maps.flatMap(({ name, matrix }, map) => [
      text(LEFT, yOf(map) - 6, `${name}: mean ${of.format(meanOf(matrix.flat()))}`),
      `<g fill="${colourOf(1)}" stroke="${GREY}" stroke-width="0.2">`,
      ...matrix.flatMap((row, layer) =>
        row.map((value, head) => {
          const place = `x="${LEFT + layer * cell}" y="${yOf(map) + head * cell}"`;
          const shade = (value / most).toFixed(2);
          return `<rect ${place} ${size} fill-opacity="${shade}"/>`;
        }),
      ),
      '</g>',
    ]),
    ...Array.from({ length: layers }, (_, layer) => layer)
      .filter((layer) => layer % every === 0)
      .map((layer) => text(LEFT + (layer + 0.5) * cell, height - 20, String(layer), 'middle')),
    text((LEFT + WIDTH) / 2, height - 4, `${of.xTitle}; full colour: ${of.format(most)}`, 'middle'),
  ]);
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}
