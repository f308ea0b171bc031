/** The spans around a stretch of time give what all spans give, without a walk over all. */
import type { TraceEvent } from '@vramkit/core';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { busyMs, bytesByPhase, bytesWithin, laneSpans, nvmlCsv, type LaneSpan } from './index.js';
import { occupancyTable } from './report/figures.js';
import { SpanIndex } from './span-index.js';

it('bytes and busy time of any stretch are those over all spans', () => {
  const span = fc.record({
    lane: fc.constantFrom('upload', 'gpu'),
    startMs: fc.nat(40),
    length: fc.oneof(fc.nat(3), fc.nat(60)),
    sizeBytes: fc.nat(100),
  });
  const stretch = fc.tuple(fc.integer({ min: -5, max: 110 }), fc.nat(50));
  fc.assert(
    fc.property(fc.array(span, { maxLength: 30 }), stretch, (list, [fromMs, length]) => {
      const spans = list
        .map((each): LaneSpan => ({ ...each, label: '', endMs: each.startMs + each.length }))
        .sort((a, b) => a.startMs - b.startMs);
      const index = new SpanIndex(spans);
      for (const lane of ['upload', 'gpu', 'none']) {
        const near = index.around(lane, fromMs, fromMs + length);
        for (const measure of [busyMs, bytesWithin]) {
          const whole = measure(spans, lane, fromMs, fromMs + length);
          expect(measure(near, lane, fromMs, fromMs + length)).toBe(whole);
        }
      }
    }),
    { numRuns: 500 },
  );
});

it('figures of many phases look at each span a few times', () => {
  const count = 2000;
  let looks = 0;
  const timed = (timeMs: number, event: object): TraceEvent =>
    ({ ...event, timeMs, durationMs: 1, label: 'step' }) as TraceEvent;
  const events = Array.from({ length: count }, (_, step) => [
    timed(step, { type: 'phase' }),
    timed(step, { type: 'phase', lane: 'gpu' }),
    timed(step, { type: 'transfer', direction: 'upload', sizeBytes: 10 }),
  ]).flat();
  const spans = laneSpans(events).map(({ lane, ...each }): LaneSpan => ({
    ...each,
    get lane() {
      looks += 1;
      return lane;
    },
  }));
  expect(bytesByPhase(spans)).toEqual([
    { phase: 'step', ms: count, bytes: { upload: 10 * count } },
  ]);
  expect(looks).toBeLessThan(20 * spans.length);
  expect(occupancyTable(events).rows).toEqual([
    ['step', '100 %', '100 %'],
    ['all', '100 %', '100 %'],
  ]);
  const lines = nvmlCsv(events, { totalBytes: 1, periodMs: 1 }).trim().split('\n');
  expect(lines.length).toBe(count + 1);
  expect(new Set(lines.slice(1).map((line) => line.split(',')[3])).size).toBe(1);
});
