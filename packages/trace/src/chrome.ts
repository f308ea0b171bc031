/**
 * Chrome's JSON trace format, which ui.perfetto.dev and chrome://tracing open.
 *
 * Times are microseconds from the first event. A lane is a thread; spans of one lane that overlap
 * without one holding the other go to further threads of the same name, because viewers draw a
 * thread as a stack. Live bytes by kind are one counter.
 *
 * Source: "Trace Event Format" (Chromium project). Perfetto calls it legacy and supports it for
 * good; its own protobuf would need a writer of our own.
 */
import type { TraceEvent } from '@vramkit/core';
import { laneNames, laneSpans, timeRange, type LaneSpan } from './spans.js';

/** One entry of `traceEvents`; the fields depend on `ph`. */
export interface ChromeEvent {
  /** X: span, C: counter, M: metadata. */
  readonly ph: 'X' | 'C' | 'M';
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  /** Microseconds. */
  readonly ts: number;
  /** Microseconds; of spans only. */
  readonly dur?: number;
  readonly cat?: string;
  readonly args?: Readonly<Record<string, string | number>>;
}

/** The object that is written as JSON. */
export interface ChromeTrace {
  readonly traceEvents: readonly ChromeEvent[];
  readonly displayTimeUnit: 'ms';
  readonly metadata: Readonly<Record<string, string | number>>;
}

/** Options of {@link chromeTrace}. */
export interface ChromeTraceOptions {
  /** Name of the process in viewers. Default: 'vramkit'. */
  readonly processName?: string;
  /** Facts about the run: plan, driver. Default: none. */
  readonly metadata?: Readonly<Record<string, string | number>>;
}

const PID = 1;

/** The trace of a timeline's events. Time O(n log n). */
export function chromeTrace(
  events: readonly TraceEvent[],
  options: ChromeTraceOptions = {},
): ChromeTrace {
  const { fromMs } = timeRange(events);
  const us = (ms: number): number => Math.round((ms - fromMs) * 1e6) / 1e3;
  const spans = laneSpans(events);
  const traceEvents: ChromeEvent[] = [];
  const describe = (name: string, tid: number, args: Record<string, string | number>): void => {
    traceEvents.push({ ph: 'M', name, pid: PID, tid, ts: 0, args });
  };
  describe('process_name', 0, { name: options.processName ?? 'vramkit' });
  let tid = 0;
  for (const lane of laneNames(spans)) {
    for (const track of stacks(spans.filter((span) => span.lane === lane))) {
      tid += 1;
      describe('thread_name', tid, { name: lane });
      describe('thread_sort_index', tid, { sort_index: tid });
      for (const { label, startMs, endMs, sizeBytes } of track) {
        const ts = us(startMs);
        const dur = Math.max(0, us(endMs) - ts);
        const moved = sizeBytes > 0 ? { bytes: sizeBytes, GBps: sizeBytes / dur / 1e3 } : {};
        const args = Number.isFinite(moved.GBps ?? 0) ? moved : { bytes: sizeBytes };
        traceEvents.push({ ph: 'X', name: label, cat: lane, pid: PID, tid, ts, dur, args });
      }
    }
  }
  for (const event of events) {
    if (event.type !== 'allocate' && event.type !== 'free') continue;
    const args = { ...event.liveBytesByKind };
    const ts = us(event.timeMs);
    traceEvents.push({ ph: 'C', name: 'device memory', pid: PID, tid: 0, ts, args });
  }
  return { traceEvents, displayTimeUnit: 'ms', metadata: options.metadata ?? {} };
}

/** Distributes spans, sorted by start, over tracks on which each two nest or are apart. */
function stacks(spans: readonly LaneSpan[]): LaneSpan[][] {
  const tracks: { spans: LaneSpan[]; open: number[] }[] = [];
  for (const span of spans) {
    const track = tracks.find(({ open }) => {
      while ((open.at(-1) ?? Infinity) <= span.startMs) open.pop();
      return (open.at(-1) ?? Infinity) >= span.endMs;
    });
    if (track === undefined) tracks.push({ spans: [span], open: [span.endMs] });
    else {
      track.spans.push(span);
      track.open.push(span.endMs);
    }
  }
  return tracks.map((track) => track.spans);
}
