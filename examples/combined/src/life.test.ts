/** Peaks of stages out of a record of memory. */
import type { MemoryEvent } from '@vramkit/core';
import { expect, it } from 'vitest';
import { Life, stageFigures } from './life.js';

const NONE = { weights: 0, kv: 0, activations: 0, gradients: 0, optimizer: 0, staging: 0 };

function change(timeMs: number, weights: number, kv: number): MemoryEvent {
  const liveBytesByKind = { ...NONE, weights, kv };
  const rest = { kind: 'kv', label: 'x', sizeBytes: 1, liveBytes: weights + kv } as const;
  return { type: 'allocate', timeMs, liveBytesByKind, ...rest };
}

it('gives each stage the most that was there in it, what it found included', () => {
  const events = [change(1, 10, 0), change(2, 10, 50), change(3, 10, 0), change(12, 10, 5)];
  const stages = [
    { name: 'a', startMs: 0, endMs: 5 },
    { name: 'idle', startMs: 5, endMs: 10 },
    { name: 'b', startMs: 10, endMs: 20 },
    { name: 'before all', startMs: 0, endMs: 0.5 },
  ];
  const figures = stageFigures({ stages, events });
  expect(figures.map(({ peakBytes }) => peakBytes)).toEqual([60, 10, 15, 0]);
  expect(figures[0]?.byKind).toEqual({ ...NONE, weights: 10, kv: 50 });
  expect(figures[3]?.byKind).toEqual(NONE);
});

it('records stages that end well, and puts what followed behind', async () => {
  const life = new Life();
  await life.stage('first', () => Promise.resolve());
  await expect(life.stage('second', () => Promise.reject(new Error('no')))).rejects.toThrow('no');
  life.trace.sink(change(1, 1, 0));
  const [own] = life.record().stages;
  const next = { name: 'next', startMs: 30, endMs: 40 };
  life.append({ stages: [next], events: [change(35, 2, 0)] });
  const { stages, events } = life.record();
  expect(stages).toEqual([own, next]);
  expect(events.map(({ timeMs }) => timeMs)).toEqual([1, 35]);
  // Another process' clock counts from the same moment.
  expect(new Life(life.originMs).trace.now()).toBeGreaterThanOrEqual(own?.endMs ?? NaN);
});
