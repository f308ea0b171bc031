/**
 * Events of a timeline from the Chrome trace that was written of it.
 *
 * A trace holds spans and the live bytes at each allocation, not labels and sizes of allocations: a
 * memory event has as its size the difference to the one before, and no label. Times are from the
 * first event, to a thousandth of a microsecond. What figures are made of is all there.
 */
import { MEMORY_KINDS, type MemoryKind, type TraceEvent } from '@vramkit/core';
import { checkChromeTrace } from './check-chrome.js';
import type { ChromeEvent, ChromeTrace } from './chrome.js';
import { PHASE_LANE } from './spans.js';

const DIRECTIONS = ['upload', 'download', 'copy'] as const;

/**
 * Reads a trace as parsed from JSON. Time O(n log n).
 * @throws VramError `corrupt-data` as {@link checkChromeTrace}.
 */
export function readChromeTrace(trace: unknown): TraceEvent[] {
  checkChromeTrace(trace);
  const { traceEvents } = trace as ChromeTrace; // the line above checked it
  let liveBytes = 0;
  const events = traceEvents.flatMap((event): TraceEvent[] => {
    if (event.ph === 'X') return [spanOf(event)];
    if (event.ph !== 'C' || event.name !== 'device memory') return [];
    const before = liveBytes;
    const liveBytesByKind = bytesByKind(event);
    liveBytes = MEMORY_KINDS.reduce((sum, kind) => sum + liveBytesByKind[kind], 0);
    const kind = MEMORY_KINDS.find((each) => liveBytesByKind[each] > 0) ?? 'weights';
    const type = liveBytes >= before ? 'allocate' : 'free';
    const sizeBytes = Math.abs(liveBytes - before);
    const timeMs = event.ts / 1e3;
    return [{ type, timeMs, kind, label: '', sizeBytes, liveBytes, liveBytesByKind }];
  });
  return events.sort((a, b) => a.timeMs - b.timeMs);
}

function spanOf({ ts, dur = 0, name: label, cat = PHASE_LANE, args }: ChromeEvent): TraceEvent {
  const timing = { timeMs: ts / 1e3, durationMs: dur / 1e3, label };
  const direction = DIRECTIONS.find((each) => each === cat);
  const sizeBytes = Number(args?.['bytes'] ?? 0);
  if (direction !== undefined) return { type: 'transfer', ...timing, direction, sizeBytes };
  return { type: 'phase', ...timing, ...(cat === PHASE_LANE ? {} : { lane: cat }) };
}

function bytesByKind({ args = {} }: ChromeEvent): Record<MemoryKind, number> {
  const pairs = MEMORY_KINDS.map((kind) => [kind, Number(args[kind] ?? 0)] as const);
  return Object.fromEntries(pairs) as Record<MemoryKind, number>; // a pair for each kind
}
