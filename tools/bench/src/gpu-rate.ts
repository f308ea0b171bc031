/**
 * Rates of work on a device: one repetition is recorded often enough into one submit that the wait
 * for its end (4.5 ms on SwiftShader) no longer counts.
 */
import { Batch } from '@vramkit/core';
import type { VramDevice } from '@vramkit/core';
import type { Measure } from './measure.js';

/** A submit should take this long. */
const submitMs = 60;
/** Repetitions of one submit at most: each has its own uniforms in a buffer of fixed size. */
const mostRepetitions = 256;

async function timeMs(device: VramDevice, record: (batch: Batch) => void, count: number) {
  const batch = new Batch(device, 'bench');
  for (let repetition = 0; repetition < count; repetition += 1) record(batch);
  const start = performance.now();
  batch.submit();
  await device.settle();
  return performance.now() - start;
}

/**
 * Compiles and calibrates, and gives a function that measures `units` per second, in billions.
 * @param units Work of one repetition, such as bytes or floating-point operations.
 */
export async function gpuRate(
  device: VramDevice,
  units: number,
  record: (batch: Batch) => void,
): Promise<Measure> {
  await timeMs(device, record, 1);
  let count = 1;
  for (let ms = await timeMs(device, record, 1); ms < submitMs && count < mostRepetitions;) {
    count = Math.min(mostRepetitions, Math.ceil(count * Math.min(8, (1.2 * submitMs) / ms)));
    ms = await timeMs(device, record, count);
  }
  return async () => (units * count) / (await timeMs(device, record, count)) / 1e6;
}
