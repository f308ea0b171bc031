/**
 * Spans of a timeline and what they add up to. Pure.
 *
 * A span is a phase or a transfer. Its lane is the phase's own, the direction of a transfer, or
 * `phases` for spans that name what goes on (forward, backward, update) and not what does it.
 */
import type { TraceEvent } from '@vramkit/core';
import { SpanIndex } from './span-index.js';

/** A stretch of time in one lane, milliseconds. */
export interface LaneSpan {
  readonly lane: string;
  readonly label: string;
  readonly startMs: number;
  readonly endMs: number;
  /** Bytes moved; 0 for work that moves none. */
  readonly sizeBytes: number;
}

/** The lane of spans that name what goes on. */
export const PHASE_LANE = 'phases';

/** All spans, by start. */
export function laneSpans(events: readonly TraceEvent[]): LaneSpan[] {
  const spans: LaneSpan[] = [];
  for (const event of events) {
    if (event.type !== 'phase' && event.type !== 'transfer') continue;
    const { label, timeMs: startMs, durationMs } = event;
    const lane = event.type === 'phase' ? (event.lane ?? PHASE_LANE) : event.direction;
    const sizeBytes = event.type === 'transfer' ? event.sizeBytes : 0;
    spans.push({ lane, label, startMs, endMs: startMs + durationMs, sizeBytes });
  }
  return spans.sort((a, b) => a.startMs - b.startMs || b.endMs - a.endMs);
}

/** Names of lanes, phases first, then by first use. */
export function laneNames(spans: readonly LaneSpan[]): string[] {
  const names = new Set(spans.some(({ lane }) => lane === PHASE_LANE) ? [PHASE_LANE] : []);
  for (const { lane } of spans) names.add(lane);
  return [...names];
}

/** Time in [fromMs, toMs) in which at least one span of the lane is under way. */
export function busyMs(spans: readonly LaneSpan[], lane: string, fromMs: number, toMs: number) {
  let busy = 0;
  let covered = fromMs;
  for (const span of spans) {
    if (span.lane !== lane) continue;
    const start = Math.max(covered, span.startMs);
    const end = Math.min(toMs, span.endMs);
    if (end > start) busy += end - start;
    covered = Math.max(covered, Math.min(toMs, span.endMs));
  }
  return busy;
}

/** Time in which both lanes have a span under way. */
export function overlapMs(spans: readonly LaneSpan[], lane: string, other: string): number {
  const { fromMs, toMs } = rangeOf(spans);
  const either = spans.map((span) => (span.lane === other ? { ...span, lane } : span));
  const busy = (of: readonly LaneSpan[], name: string): number => busyMs(of, name, fromMs, toMs);
  return busy(spans, lane) + busy(spans, other) - busy(either, lane);
}

function rangeOf(spans: readonly LaneSpan[]): { readonly fromMs: number; readonly toMs: number } {
  let fromMs = Infinity;
  let toMs = -Infinity;
  for (const { startMs, endMs } of spans) {
    fromMs = Math.min(fromMs, startMs);
    toMs = Math.max(toMs, endMs);
  }
  return { fromMs, toMs };
}

/** Bytes of a lane in [fromMs, toMs), spread evenly over each of its spans. */
export function bytesWithin(
  spans: readonly LaneSpan[],
  lane: string,
  fromMs: number,
  toMs: number,
): number {
  let bytes = 0;
  for (const span of spans) {
    if (span.lane !== lane || span.sizeBytes === 0) continue;
    const length = span.endMs - span.startMs;
    if (length <= 0) {
      if (span.startMs >= fromMs && span.startMs < toMs) bytes += span.sizeBytes;
      continue;
    }
    const shared = Math.min(toMs, span.endMs) - Math.max(fromMs, span.startMs);
    if (shared > 0) bytes += (span.sizeBytes * shared) / length;
  }
  return bytes;
}

/** Bytes that each lane moved during the phases of each label. */
export function bytesByPhase(
  spans: readonly LaneSpan[],
): { readonly phase: string; readonly ms: number; readonly bytes: Record<string, number> }[] {
  const phases = new Map<string, { phase: string; ms: number; bytes: Record<string, number> }>();
  const lanes = laneNames(spans).filter((lane) => lane !== PHASE_LANE);
  const index = new SpanIndex(spans);
  for (const { lane, label, startMs, endMs } of spans) {
    if (lane !== PHASE_LANE) continue;
    const entry = phases.get(label) ?? { phase: label, ms: 0, bytes: {} };
    entry.ms += endMs - startMs;
    for (const each of lanes) {
      const moved = bytesWithin(index.around(each, startMs, endMs), each, startMs, endMs);
      if (moved > 0) entry.bytes[each] = (entry.bytes[each] ?? 0) + moved;
    }
    phases.set(label, entry);
  }
  return [...phases.values()];
}

/** First start and last end of everything that happened; zeros for nothing. */
export function timeRange(events: readonly TraceEvent[]): { fromMs: number; toMs: number } {
  let fromMs = Infinity;
  let toMs = -Infinity;
  for (const event of events) {
    fromMs = Math.min(fromMs, event.timeMs);
    toMs = Math.max(toMs, event.timeMs + ('durationMs' in event ? event.durationMs : 0));
  }
  return fromMs <= toMs ? { fromMs, toMs } : { fromMs: 0, toMs: 0 };
}
