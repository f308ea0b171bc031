/** Laws of timelines: nothing is lost on the way into Chrome's format, the CSV and the report. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { MEMORY_KINDS, type TraceEvent } from '@vramkit/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  busyMs,
  bytesByPhase,
  bytesWithin,
  checkChromeTrace,
  chromeTrace,
  laneSpans,
  nvmlCsv,
  peakBytes,
  renderReport,
  Timeline,
  timeRange,
} from './index.js';

const time = fc.double({ min: 0, max: 1000, noNaN: true });
const length = fc.double({ min: 0, max: 50, noNaN: true });
const label = fc.constantFrom('forward', 'backward', 'update', '</script>');
const size = fc.integer({ min: 1, max: 1e9 });
const events: fc.Arbitrary<TraceEvent[]> = fc.array(
  fc.oneof(
    fc.record({
      type: fc.constant('phase' as const),
      timeMs: time,
      durationMs: length,
      label,
      lane: fc.constantFrom('gpu', 'cpu-adam', 'cast'),
    }),
    fc.record({ type: fc.constant('phase' as const), timeMs: time, durationMs: length, label }),
    fc.record({
      type: fc.constant('transfer' as const),
      timeMs: time,
      durationMs: length,
      direction: fc.constantFrom('upload' as const, 'download' as const),
      label,
      sizeBytes: size,
    }),
    fc
      .record({ type: fc.constant('allocate' as const), timeMs: time, sizeBytes: size, label })
      .map(({ sizeBytes, ...rest }): TraceEvent => ({
        ...rest,
        sizeBytes,
        kind: 'weights',
        liveBytes: sizeBytes,
        liveBytesByKind: {
          ...{ weights: 0, kv: 0, activations: 0, gradients: 0, optimizer: 0, staging: 0 },
          weights: sizeBytes,
        },
      })),
  ),
  { maxLength: 60 },
);
const sorted = events.map((list) => [...list].sort((a, b) => a.timeMs - b.timeMs));

describe('a Chrome trace', () => {
  it('passes the strict reader and keeps every span, counter and byte', () => {
    fc.assert(
      fc.property(sorted, (list) => {
        const trace = chromeTrace(list, { metadata: { plan: 'p' } });
        checkChromeTrace(JSON.parse(JSON.stringify(trace)));
        const spans = laneSpans(list);
        const drawn = trace.traceEvents.filter(({ ph }) => ph === 'X');
        expect(drawn).toHaveLength(spans.length);
        const ms = drawn.reduce((sum, { dur = 0 }) => sum + dur / 1e3, 0);
        expect(ms).toBeCloseTo(
          spans.reduce((sum, s) => sum + s.endMs - s.startMs, 0),
          3,
        );
        const bytes = drawn.reduce((sum, { args }) => sum + Number(args?.['bytes'] ?? 0), 0);
        expect(bytes).toBe(spans.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
      }),
    );
  });

  const span = { ph: 'X', name: 'a', pid: 1, tid: 1, ts: 0, dur: 5 };
  const thread = { ph: 'M', name: 'thread_name', pid: 1, tid: 1, ts: 0, args: { name: 'gpu' } };
  const broken: [string, unknown[]][] = [
    ['a span on a thread without a name', [span]],
    ['a negative duration', [thread, { ...span, dur: -1 }]],
    ['a time that is not a number', [thread, { ...span, ts: '0' }]],
    ['spans that cross', [thread, span, { ...span, ts: 3, dur: 9 }]],
    ['an unknown phase', [{ ...span, ph: 'Z' }]],
    ['an empty name', [thread, { ...span, name: '' }]],
    ['a counter that is not a number', [{ ...span, ph: 'C', args: { weights: 'many' } }]],
    ['a counter that goes back', [5, 1].map((ts) => ({ ...span, ph: 'C', ts, args: {} }))],
  ];
  it.each(broken)('with %s is refused', (_, traceEvents) => {
    const wrong = expect.objectContaining({ code: 'corrupt-data' });
    expect(() => checkChromeTrace({ traceEvents, displayTimeUnit: 'ms' })).toThrow(wrong);
    checkChromeTrace({ traceEvents: [thread, span], displayTimeUnit: 'ms' });
  });
});

it('spreads bytes over windows without losing any', () => {
  fc.assert(
    fc.property(sorted, fc.integer({ min: 1, max: 17 }), (list, parts) => {
      const spans = laneSpans(list);
      const { fromMs, toMs } = timeRange(list);
      const step = (toMs + 1e-6 - fromMs) / parts;
      let bytes = 0;
      for (let part = 0; part < parts; part++) {
        const start = fromMs + part * step;
        bytes += bytesWithin(spans, 'upload', start, start + step);
        expect(busyMs(spans, 'gpu', start, start + step)).toBeLessThanOrEqual(step * (1 + 1e-9));
      }
      const all = spans.filter(({ lane }) => lane === 'upload');
      const expected = all.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      expect(Math.abs(bytes - expected)).toBeLessThanOrEqual(1e-6 * expected + 1e-6);
    }),
  );
});

const STEP: TraceEvent[] = [
  { type: 'phase', timeMs: 100, durationMs: 40, label: 'update' },
  {
    type: 'transfer',
    timeMs: 100,
    durationMs: 20,
    direction: 'upload',
    label: 'a',
    sizeBytes: 4e6,
  },
  { type: 'phase', timeMs: 110, durationMs: 20, label: 'adam 0', lane: 'gpu' },
  {
    type: 'transfer',
    timeMs: 130,
    durationMs: 20,
    direction: 'download',
    label: 'b',
    sizeBytes: 2e6,
  },
];

it('attributes bytes to phases', () => {
  expect(bytesByPhase(laneSpans(STEP))).toEqual([
    { phase: 'update', ms: 40, bytes: { upload: 4e6, download: 1e6 } },
  ]);
});

it('samples rates and utilisation as NVML monitors do', () => {
  const lines = nvmlCsv(STEP, { totalBytes: 1e9, epochMs: 1e12 }).trim().split('\n');
  expect(lines.map((line) => line.split(',').slice(0, 5))).toEqual([
    ['device_id', 'timestamp', 'txpci', 'rxpci', 'gpu_util'],
    ['0', '1000000000120000000', '0.00', '190.73', '50'],
    ['0', '1000000000140000000', '47.68', '0.00', '50'],
    ['0', '1000000000160000000', '47.68', '0.00', '0'],
  ]);
});

it('keeps the start of a run that outgrows it, and counts the rest', () => {
  const timeline = new Timeline({ maxEvents: 3 });
  for (const event of STEP) timeline.sink(event);
  expect(timeline.events).toEqual(STEP.slice(0, 3));
  expect(timeline.droppedCount).toBe(1);
  timeline.clear();
  expect([timeline.events.length, timeline.droppedCount]).toEqual([0, 0]);
  expect(peakBytes(STEP).total).toBe(0);
});

it('makes a page that fetches nothing and that no text can break out of', () => {
  const require = createRequire(import.meta.url);
  const read = (path: string): string => readFileSync(path, 'utf8');
  const library = {
    script: read(require.resolve('uplot/dist/uPlot.iife.min.js')),
    style: read(require.resolve('uplot/dist/uPlot.min.css')),
  };
  fc.assert(
    fc.property(sorted, (list) => {
      const page = renderReport(list, library, { title: '<b>', facts: { a: '</dl>' } });
      expect(page.match(/<\/script>/g)).toHaveLength(2);
      expect(page).not.toMatch(/(src|href)=|@import|url\(/);
      expect(page).toContain('&lt;b&gt;');
    }),
    { numRuns: 20 },
  );
  expect(MEMORY_KINDS.length).toBe(6);
});
