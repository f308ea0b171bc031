/** Turns a report of `vramkit doctor` into text for a terminal. Pure. */
import type { Figure } from './measure.js';
import type { DoctorFailure, DoctorReport } from './report.js';

type Row = readonly (string | undefined)[];

/** Limits that decide how memory is cut, with their names for people. */
const shownLimits: readonly (readonly [name: string, title: string, isBytes: boolean])[] = [
  ['maxBufferSize', 'largest buffer', true],
  ['maxStorageBufferBindingSize', 'largest storage binding', true],
  ['maxStorageBuffersPerShaderStage', 'storage bindings per kernel', false],
  ['maxComputeWorkgroupStorageSize', 'workgroup memory', true],
  ['maxComputeInvocationsPerWorkgroup', 'workgroup invocations', false],
  ['maxComputeWorkgroupsPerDimension', 'workgroups per dimension', false],
];

/** Optional features that vramkit has faster paths for. */
const usedFeatures = ['shader-f16', 'subgroups', 'timestamp-query'];

interface Paint {
  readonly bold: (text: string) => string;
  readonly dim: (text: string) => string;
  readonly good: (text: string) => string;
  readonly bad: (text: string) => string;
}

function painter(colours: boolean): Paint {
  const wrap = (on: number, off: number) => (text: string) =>
    colours ? `\x1b[${on}m${text}\x1b[${off}m` : text;
  return { bold: wrap(1, 22), dim: wrap(2, 22), good: wrap(32, 39), bad: wrap(31, 39) };
}

/** Bytes in the largest binary unit that leaves a number of at least one. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit] ?? ''}`;
}

/** A number with about three significant digits and no exponent. */
export function formatNumber(value: number): string {
  if (value >= 100) return Math.round(value).toLocaleString('en-US');
  return value.toFixed(value >= 10 ? 1 : 2);
}

/** Rows of a titled block, columns aligned; numbers to the right where `right` says so. */
function block(
  title: string,
  rows: readonly Row[],
  paint: Paint,
  right: readonly number[] = [],
): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, index) => {
      widths[index] = Math.max(widths[index] ?? 0, (cell ?? '').length);
    });
  }
  const lines = rows.map((row) => {
    const cells = row.map((cell, index) => {
      const width = widths[index] ?? 0;
      const text = right.includes(index)
        ? (cell ?? '').padStart(width)
        : (cell ?? '').padEnd(width);
      return index === 0 ? paint.dim(text) : text;
    });
    return `  ${cells.join('  ').trimEnd()}`;
  });
  return `${paint.bold(title)}\n${lines.join('\n')}\n`;
}

function figureRow(title: string, figure: Figure, note = ''): Row {
  const spread = `${formatNumber(figure.min)} to ${formatNumber(figure.max)}`;
  const { unit, runs } = figure;
  return [title, formatNumber(figure.median), unit, `${spread}, ${runs} runs`, note];
}

/** Breaks words into lines of at most `width` characters. */
function wrapWords(words: readonly string[], width: number): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= width) {
      lines[lines.length - 1] = `${last} ${word}`;
    } else {
      lines.push(word);
    }
  }
  return lines;
}

function conclusions(report: DoctorReport): string[] {
  const { measured, adapter } = report;
  const direct = measured.uploadWriteBuffer.median;
  const mapped = measured.uploadMapped.median;
  const [faster, ratio] =
    direct >= mapped ? ['writeBuffer', direct / mapped] : ['the mapped ring', mapped / direct];
  const lines = [`Uploads go faster by ${faster} here, ${ratio.toFixed(1)} times.`];
  if (adapter.software) {
    lines.push(
      'A software driver: the processor runs the shaders. Right for tests, slow for work.',
    );
  }
  return lines;
}

/** The report of a working adapter. */
export function formatReport(report: DoctorReport, colours: boolean): string {
  const paint = painter(colours);
  const { adapter, machine, measured } = report;
  const others = report.features.filter((feature) => !usedFeatures.includes(feature));
  const size = measured.matmulSize;
  const named = !adapter.software || adapter.name === 'software';
  return [
    block(
      `vramkit ${report.vramkit} doctor`,
      [
        ['adapter', adapter.name + (named ? '' : ' (software)')],
        ['driver', adapter.driver],
        ['vendor', [adapter.vendor, adapter.architecture].filter(Boolean).join(', ') || 'unnamed'],
        ['backend', `${adapter.backend}, through ${adapter.implementation}`],
        ['found by', adapter.source],
        [
          'machine',
          `${machine.platform} ${machine.arch}, ${machine.runtime}, ` +
            `${machine.processorCount} x ${machine.processor}, ${formatBytes(machine.memoryBytes)}`,
        ],
      ],
      paint,
    ),
    block(
      'Limits',
      shownLimits.map(([name, title, isBytes]) => {
        const value = report.limits[name] ?? Number.NaN;
        return [title, isBytes ? formatBytes(value) : value.toLocaleString('en-US')];
      }),
      paint,
      [1],
    ),
    block(
      'Features',
      [
        ...usedFeatures.map((name) => [name, report.features.includes(name) ? 'yes' : 'no']),
        ...wrapWords(others, 74).map((line, index) => [index === 0 ? 'others' : '', line]),
      ],
      paint,
    ),
    block(
      'Measured (median)',
      [
        figureRow('upload, writeBuffer', measured.uploadWriteBuffer),
        figureRow('upload, mapped ring', measured.uploadMapped),
        figureRow('download', measured.download),
        figureRow('copy on the device', measured.copy),
        figureRow('matrix product, f32', measured.matmul, `${size} x ${size}, plain kernel`),
        figureRow('one more dispatch', measured.dispatch),
        figureRow('submit and wait', measured.completionWait),
      ],
      paint,
      [1],
    ),
    conclusions(report)
      .map((line) => `${line}\n`)
      .join(''),
  ].join('\n');
}

/** The report of a machine without a working adapter. */
export function formatFailure(failure: DoctorFailure, colours: boolean): string {
  const paint = painter(colours);
  const { machine, error } = failure;
  return [
    `${paint.bold(`vramkit ${failure.vramkit} doctor`)}\n` +
      `  ${paint.bad(error.message)}\n` +
      `  ${paint.dim(`${machine.platform} ${machine.arch}, ${machine.runtime}`)}\n`,
    ...failure.advice.map(
      ({ title, lines }) => `${paint.bold(title)}\n${lines.map((line) => `  ${line}\n`).join('')}`,
    ),
  ].join('\n');
}
