/** A calibration has a line for every rate, survives JSON, and knows what it holds for. */
import { createGpu } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import { memoryStore } from '@vramkit/storage';
import { expect, it } from 'vitest';
import {
  auto,
  calibrate,
  checkMachine,
  isCalibrationOf,
  machineAt,
  mergeCalibrations,
} from './index.js';

it('measures every rate and leaves nothing on the device', async () => {
  const { gpu } = await createGpu();
  const device = await openDevice({ gpu });
  const live = device.memory.stats().liveBytes;
  const options = {
    largest: 32 * 1024,
    parameterCount: 64 * 1024,
    runs: 2,
    parameterDType: 'bf16',
    softwareCores: 2,
  } as const;
  const store = memoryStore();
  const calibration = await calibrate(device, { ...options, store });
  const { copy, adamByThreads, storageRead, storageWrite } = calibration.host;
  expect(adamByThreads).toHaveLength(2);
  for (const rate of [copy, ...adamByThreads, storageRead, storageWrite]) {
    expect(rate?.perSecond).toBeGreaterThan(0);
  }
  for await (const { key } of store.list('')) throw new Error(`${key} was left`);
  expect(device.memory.stats().liveBytes).toBe(live);
  for (const { perSecond, fixedMs, samples } of Object.values(calibration.rates)) {
    expect(perSecond).toBeGreaterThan(0);
    expect(fixedMs).toBeGreaterThanOrEqual(0);
    expect(samples).toHaveLength(4);
  }
  const { machine } = calibration;
  for (const curve of Object.values(machine.curves ?? {})) expect(curve).toHaveLength(4);
  expect(calibration.contention.map(({ size }) => size)).toEqual([4096, 8192, 16_384, 32_768]);
  const [first] = calibration.contention;
  expect(machineAt(calibration, 1000).contention).toEqual({
    queue: first?.queue,
    host: first?.host,
  });
  const merged = mergeCalibrations(calibration, calibration);
  expect(merged.measured[0]?.updates.mixed).toHaveLength(2 * options.runs);
  expect(merged.machine).toEqual(machine);
  const saved = JSON.parse(JSON.stringify(calibration)) as typeof calibration;
  expect(saved).toEqual(calibration);
  checkMachine(saved.machine);
  expect(isCalibrationOf(saved, device, options)).toBe(true);
  expect(isCalibrationOf(saved, device, { ...options, threads: 2 })).toBe(false);
  const plan = auto({ parameterCount: 100_000, subgroupSize: 10_000 }, { machine: saved.machine });
  expect('schedule' in plan && plan.measurement).toBe(saved.machine.name);
  const signal = AbortSignal.abort();
  const aborted = expect.objectContaining({ code: 'aborted' });
  await expect(calibrate(device, { ...options, signal })).rejects.toEqual(aborted);
  expect(device.memory.stats().liveBytes).toBe(live);
  device.dispose();
});
