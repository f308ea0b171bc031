/**
 * The figure of docs/guides/offload-model.md: throughput over stride, logs as dots, model as lines.
 */

/** One point of the figure. */
export interface StridePoint {
  readonly name: 'h100' | 'a100';
  readonly stride: number;
  readonly logged: number;
  readonly predicted: number;
}

const LABELS = { h100: '4xH100', a100: '4xA100' } as const;
const HEAD =
  '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 660 330" ' +
  'font-family="sans-serif" font-size="13" fill="#8a949e">';
const TITLE = 'stride; dots: logs, lines: model; billions of parameters per second';

/** SVG text; colours that read on light and dark paper. */
export function strideFigure(points: readonly StridePoint[]): string {
  const x = (stride: number): string => (60 + (stride - 2) * 72).toFixed(1);
  const y = (value: number): string => (280 - value * 15).toFixed(1);
  const series = (['h100', 'a100'] as const).map((name, at) => {
    const own = points.filter((point) => point.name === name);
    const colour = at === 0 ? '#0b6e99' : '#c2571a';
    const line = own.map(({ stride, predicted }) => `${x(stride)},${y(predicted)}`).join(' ');
    const dots = own.map(
      ({ stride, logged }) =>
        `<circle cx="${x(stride)}" cy="${y(logged)}" r="4" fill="${colour}"/>`,
    );
    const labelY = Number(y(own[0]?.predicted ?? 0)) - 6;
    return `<polyline points="${line}" fill="none" stroke="${colour}" stroke-width="2"/>
${dots.join('\n')}
<text x="${x(8)}" y="${labelY}" fill="${colour}">${LABELS[name]}</text>`;
  });
  const grid = [0, 5, 10, 15].map((value) => {
    const label = `<text x="52" y="${Number(y(value)) + 4}" text-anchor="end">${value}</text>`;
    return `<path d="M60 ${y(value)}H640" stroke="#8a949e" stroke-width="0.5"/>\n${label}`;
  });
  const ticks = [2, 3, 4, 6, 8, 10].map(
    (stride) => `<text x="${x(stride)}" y="300" text-anchor="middle">${stride}</text>`,
  );
  return `${HEAD}
${grid.join('\n')}
${ticks.join('\n')}
${series.join('\n')}
<text x="350" y="322" text-anchor="middle">${TITLE}</text>
</svg>
`;
}
