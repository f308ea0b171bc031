/** What was written comes back: every figure of a timeline is the same from its trace. */
import type { TraceEvent } from '@vramkit/core';
import { expect, it } from 'vitest';
import {
  chromeTrace,
  memoryPlot,
  occupancyTable,
  overlapTable,
  peakBytes,
  phaseTable,
  readChromeTrace,
  transferPlot,
} from './index.js';

const kinds = { weights: 0, kv: 0, activations: 0, gradients: 0, optimizer: 0, staging: 0 };
const memory = (type: 'allocate' | 'free', timeMs: number, kv: number, weights: number) => ({
  type,
  timeMs,
  kind: 'kv' as const,
  label: 'block',
  sizeBytes: 4,
  liveBytes: kv + weights,
  liveBytesByKind: { ...kinds, kv, weights },
});
const events: TraceEvent[] = [
  { type: 'phase', timeMs: 5, durationMs: 4, label: 'forward' },
  memory('allocate', 5.5, 0, 800),
  { type: 'transfer', timeMs: 6, durationMs: 2, direction: 'upload', label: 'w', sizeBytes: 4e6 },
  { type: 'phase', timeMs: 6.5, durationMs: 1, label: 'adam', lane: 'cpu' },
  memory('allocate', 7, 4096, 800),
  memory('free', 8, 0, 800),
  { type: 'phase', timeMs: 9, durationMs: 1, label: 'update' },
  {
    type: 'transfer',
    timeMs: 9.5,
    durationMs: 0.25,
    direction: 'download',
    label: 'g',
    sizeBytes: 9,
  },
];

it('gives the same figures', () => {
  // Through text, as a file holds it.
  const read = readChromeTrace(JSON.parse(JSON.stringify(chromeTrace(events))));
  expect(read).toHaveLength(events.length);
  expect(phaseTable(read)).toEqual(phaseTable(events));
  expect(occupancyTable(read)).toEqual(occupancyTable(events));
  expect(overlapTable(read)).toEqual(overlapTable(events));
  expect(peakBytes(read).total).toBe(4896);
  const [plot, written] = [memoryPlot(read), memoryPlot(events)];
  expect(plot.series).toEqual(written.series);
  plot.x.forEach((x, index) => expect(x).toBeCloseTo(written.x[index] ?? NaN, 6));
  expect(transferPlot(read).series.map(({ label }) => label)).toEqual(['upload', 'download']);
  // Written again it is the same trace.
  expect(chromeTrace(read).traceEvents).toEqual(chromeTrace(events).traceEvents);
});

it('refuses what is no trace', () => {
  const corrupt = expect.objectContaining({ code: 'corrupt-data' }) as Error;
  for (const wrong of [null, [], {}, { displayTimeUnit: 'ms', traceEvents: [{ ph: 'X' }] }]) {
    expect(() => readChromeTrace(wrong)).toThrow(corrupt);
  }
});
