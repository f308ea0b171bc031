/**
 * The figures of the memory-wall study (Maurya et al., 2024) over a timeline: memory by kind with
 * phases behind, transfer rates, phase times, bytes per parameter by phase and direction, occupancy
 * of lanes. Sweeps and comparisons come to the report as plots that the caller made.
 */
import { MEMORY_KINDS, type TraceEvent } from '@vramkit/core';
import {
  busyMs,
  bytesByPhase,
  bytesWithin,
  laneNames,
  laneSpans,
  overlapMs,
  PHASE_LANE,
  timeRange,
  type LaneSpan,
} from '../spans.js';
import { SpanIndex } from '../span-index.js';
import type { Plot } from './plot.js';

/** Points of a curve over time. */
const SAMPLES = 400;

/** A table of the report. */
export interface ReportTable {
  readonly title: string;
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
}

/** Live device bytes by kind over time, with phases behind. */
export function memoryPlot(events: readonly TraceEvent[]): Plot {
  const { fromMs, toMs } = timeRange(events);
  const changes = events.filter((event) => 'liveBytes' in event);
  // What was there at the last change stays to the end.
  const memory = [...changes, ...changes.slice(-1).map((last) => ({ ...last, timeMs: toMs }))];
  const kinds = MEMORY_KINDS.filter((kind) =>
    memory.some(({ liveBytesByKind }) => liveBytesByKind[kind] > 0),
  );
  return {
    title: 'Device memory by kind',
    xLabel: 'ms',
    yLabel: 'bytes',
    bytes: true,
    stacked: true,
    x: memory.map(({ timeMs }) => timeMs - fromMs),
    series: kinds.map((kind) => ({
      label: kind,
      values: memory.map(({ liveBytesByKind }) => liveBytesByKind[kind]),
    })),
    bands: phaseBands(events),
  };
}

/** GB/s up and down over time, with phases behind. */
export function transferPlot(events: readonly TraceEvent[]): Plot {
  const { fromMs, toMs } = timeRange(events);
  const spans = laneSpans(events);
  const step = (toMs - fromMs) / SAMPLES || 1;
  const starts = Array.from({ length: SAMPLES }, (_, index) => fromMs + index * step);
  const lanes = ['upload', 'download', 'copy'].filter((lane) =>
    spans.some((span) => span.lane === lane),
  );
  return {
    title: 'Transfer rates',
    xLabel: 'ms',
    yLabel: 'GB/s',
    x: starts.map((start) => start - fromMs + step / 2),
    series: lanes.map((lane) => ({
      label: lane,
      values: starts.map((start) => bytesWithin(spans, lane, start, start + step) / step / 1e6),
    })),
    bands: phaseBands(events),
  };
}

function phaseBands(events: readonly TraceEvent[]): NonNullable<Plot['bands']> {
  const { fromMs } = timeRange(events);
  return laneSpans(events)
    .filter(({ lane }) => lane === PHASE_LANE)
    .map(({ label, startMs, endMs }) => ({ label, from: startMs - fromMs, to: endMs - fromMs }));
}

/** Time and bytes of each phase; bytes per parameter where their number is known. */
export function phaseTable(events: readonly TraceEvent[], parameterCount?: number): ReportTable {
  const phases = bytesByPhase(laneSpans(events));
  const moved = (bytes: number | undefined): string => {
    if (parameterCount === undefined) return ((bytes ?? 0) / 1e6).toFixed(2);
    return ((bytes ?? 0) / parameterCount).toFixed(2);
  };
  const unit = parameterCount === undefined ? 'MB' : 'B/parameter';
  return {
    title: 'Phases',
    header: ['phase', 'ms', `up, ${unit}`, `down, ${unit}`],
    rows: phases.map(({ phase, ms, bytes }) => [
      phase,
      ms.toFixed(2),
      moved(bytes['upload']),
      moved(bytes['download']),
    ]),
  };
}

/** Share of each phase in which each lane is busy. */
export function occupancyTable(events: readonly TraceEvent[]): ReportTable {
  const spans = laneSpans(events);
  const index = new SpanIndex(spans);
  const lanes = laneNames(spans).filter((lane) => lane !== PHASE_LANE);
  const whole = timeRange(events);
  const phases = new Map<string, LaneSpan[]>();
  for (const span of spans) {
    if (span.lane !== PHASE_LANE) continue;
    const parts = phases.get(span.label) ?? [];
    phases.set(span.label, parts);
    parts.push(span);
  }
  const percent = (busy: number, all: number): string =>
    `${((100 * busy) / Math.max(all, 1e-9)).toFixed(0)} %`;
  const row = (label: string, parts: readonly { startMs: number; endMs: number }[]): string[] => {
    const all = parts.reduce((sum, { startMs, endMs }) => sum + endMs - startMs, 0);
    const busy = (lane: string): number =>
      parts.reduce(
        (sum, { startMs, endMs }) =>
          sum + busyMs(index.around(lane, startMs, endMs), lane, startMs, endMs),
        0,
      );
    return [label, ...lanes.map((lane) => percent(busy(lane), all))];
  };
  return {
    title: 'Occupancy of lanes',
    header: ['during', ...lanes],
    rows: [
      ...[...phases].map(([label, parts]) => row(label, parts)),
      row('all', [{ startMs: whole.fromMs, endMs: whole.toMs }]),
    ],
  };
}

/** How much of what a lane does runs while another works; pairs that never meet are left out. */
export function overlapTable(events: readonly TraceEvent[]): ReportTable {
  const spans = laneSpans(events);
  const lanes = laneNames(spans).filter((lane) => lane !== PHASE_LANE);
  const { fromMs, toMs } = timeRange(events);
  const rows: string[][] = [];
  for (const [index, lane] of lanes.entries()) {
    for (const other of lanes.slice(index + 1)) {
      const both = overlapMs(spans, lane, other);
      if (both <= 0) continue;
      const share = (of: string): string =>
        `${((100 * both) / busyMs(spans, of, fromMs, toMs)).toFixed(0)} % of ${of}`;
      rows.push([`${lane} and ${other}`, both.toFixed(2), share(lane), share(other)]);
    }
  }
  return { title: 'Overlap', header: ['lanes', 'ms at once', 'share', 'share'], rows };
}
