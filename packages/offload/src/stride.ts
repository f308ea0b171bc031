/**
 * The closed form behind Deep Optimizer States: time per parameter of a period of k movable
 * subgroups, k - 1 updated on the host and one streamed through the device, and the k for which it
 * is least.
 *
 * Three bounds, the largest of which holds: host Adam (with the cast where both share threads), the
 * link and the device (added up where one queue serves both, else the longer direction), and host
 * memory traffic. The subgroup size cancels: it matters only through latencies, buffers and the
 * tail.
 *
 * Source: Deep Optimizer States (Maurya et al., 2024) for the idea; the terms for host memory and
 * for a single queue are ours. The argmin is taken and not the balance point k at which no lane
 * idles: with rates of a large node the balance point is one too high. `simulate()` times the tail
 * and the latencies too, which this form ignores.
 */
import { checkInteger } from '@vramkit/core';
import type { Machine } from './machine.js';

/** Milliseconds per parameter with stride `k`; `Infinity` streams nothing. `wide` = push bytes. */
export function periodMsPerParam(k: number, machine: Machine, pushBytes: number): number {
  const hostShare = k === Infinity ? 1 : (k - 1) / k;
  const movedShare = 1 - hostShare;
  const adam = hostShare / machine.cpuAdamParamsPerSecond;
  const cast = pushBytes < 4 ? hostShare / machine.castParamsPerSecond : 0;
  const up = (12 * movedShare + pushBytes * hostShare) / machine.uploadBytesPerSecond;
  const down = (12 * movedShare) / machine.downloadBytesPerSecond;
  const gpu = movedShare / machine.gpuAdamParamsPerSecond;
  const queue = machine.queue === 'single' ? up + down + gpu : Math.max(up, down, gpu);
  const traffic = hostShare * (28 + 6 + pushBytes) + movedShare * 24;
  const host = machine.hostThreads === 'shared' ? adam + cast : Math.max(adam, cast);
  return 1e3 * Math.max(host, queue, traffic / machine.hostBytesPerSecond);
}

/** The stride in 1..`most` or `Infinity` for which {@link periodMsPerParam} is least. */
export function bestStride(machine: Machine, pushBytes: number, most: number): number {
  checkInteger('most', most, 1);
  let best = Infinity;
  for (let k = 1; k <= most; k++) {
    const isBetter =
      periodMsPerParam(k, machine, pushBytes) < periodMsPerParam(best, machine, pushBytes);
    if (isBetter) best = k;
  }
  return best;
}
