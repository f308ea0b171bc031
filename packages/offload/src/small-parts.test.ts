/** Learning rates, loss scales, settings of Adam, and the lane runner's order of events. */
import { describe, expect, it } from 'vitest';
import { completeAdam, warmupCosine } from './index.js';
import { gradientScaleOf, nextLossScale } from './loss-scale.js';
import { runLanes } from './run-lanes.js';
import type { Lane, Operation } from './schedule.js';

it('warms up linearly and falls along a cosine', () => {
  const rate = warmupCosine({ peak: 2, floor: 1, warmupSteps: 10, totalSteps: 20 });
  expect([1, 5, 10, 15, 20, 99].map(rate)).toEqual([0.2, 1, 2, 1.5, 1, 1]);
  expect(() => warmupCosine({ peak: 1, totalSteps: 0 })).toThrow();
});

it('halves the loss scale after a bad step and doubles it after a run of good ones', () => {
  const options = { growthSteps: 2, least: 4 };
  let state = { scale: 8, goodSteps: 0 };
  const scales = [true, true, false, false, false, true].map((good) => {
    state = nextLossScale(state, good, options);
    return state.scale;
  });
  expect(scales).toEqual([8, 16, 8, 4, 4, 4]);
});

it('takes the loss scale out and clips', () => {
  expect(gradientScaleOf(8, 4, Infinity)).toBe(1 / 4);
  expect(gradientScaleOf(8, 4, 3)).toBe(1 / 4);
  expect(gradientScaleOf(8, 4, 1) * 8).toBeCloseTo(1, 5);
});

it('refuses settings out of range', () => {
  const bad = [
    { beta1: 1 },
    { beta2: -1 },
    { epsilon: 0 },
    { epsilon: 1e-46 },
    { epsilon: Infinity },
    { weightDecay: -1 },
    { weightDecay: Infinity },
    { learningRate: NaN },
  ];
  for (const options of bad) expect(() => completeAdam(options)).toThrow(/^invalid-argument/);
});

describe('runLanes', () => {
  const operation = (lane: Lane, ...after: number[]): Operation => ({
    lane,
    kind: 'adam',
    subgroup: 0,
    params: 0,
    bytes: 0,
    after,
  });
  const wait = () => new Promise<void>((resolve) => setTimeout(resolve, 1));

  it('keeps the order of a lane and of dependencies, and overlaps the rest', async () => {
    const operations = [
      operation('upload'),
      operation('gpu', 0),
      operation('upload'),
      operation('download', 1),
    ];
    const log: string[] = [];
    await runLanes(operations, async (each) => {
      const id = operations.indexOf(each);
      log.push(`start ${id}`);
      await wait();
      log.push(`end ${id}`);
    });
    const at = (text: string): number => log.indexOf(text);
    expect(at('end 0')).toBeLessThan(at('start 1'));
    expect(at('end 0')).toBeLessThan(at('start 2'));
    expect(at('end 1')).toBeLessThan(at('start 3'));
    expect(at('start 2')).toBeLessThan(at('end 1'));
  });

  it('starts nothing behind a failure and waits for what had started', async () => {
    const operations = [
      operation('upload'),
      operation('gpu'),
      operation('gpu'),
      operation('cast', 1),
    ];
    const ended: number[] = [];
    const run = runLanes(operations, async (each) => {
      const id = operations.indexOf(each);
      if (id === 1) throw new Error('broken');
      await wait();
      ended.push(id);
    });
    await expect(run).rejects.toThrow('broken');
    expect(ended).toEqual([0]);
  });
});
