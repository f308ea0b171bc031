/**
 * Two machines as the released logs of Deep Optimizer States describe them: a node of four H100 and
 * a node of four A100, each with the CPUs and the memory that its four ranks share.
 *
 * The link rate of the H100 node is the peak in the authors' plot. The other rates are fitted to
 * the logs as model-against-logs.test.ts says: host memory to the sweep over strides, the CPU's
 * rates to runs without streaming, the device's to the run with everything on it. They are inputs
 * of a model, not data sheets.
 */
import { perLane, type Machine } from './machine.js';

/** Four H100 of 80 GB, 20B parameters over four ranks. */
export const H100_NODE: Machine = {
  name: '4xH100, released logs',
  cpuAdamParamsPerSecond: 16.5e9,
  castParamsPerSecond: 22e9,
  upcastParamsPerSecond: 6.12e9,
  gpuAdamParamsPerSecond: 240e9,
  uploadBytesPerSecond: 4 * 55.2e9,
  downloadBytesPerSecond: 4 * 55.2e9,
  hostBytesPerSecond: 470e9,
  latencyMs: perLane(0.02),
  queue: 'streams',
  hostThreads: 'apart',
};

/** Four A100, 20B parameters over four ranks. */
export const A100_NODE: Machine = {
  name: '4xA100, released logs',
  cpuAdamParamsPerSecond: 6.25e9,
  castParamsPerSecond: 12.3e9,
  upcastParamsPerSecond: 6e9,
  gpuAdamParamsPerSecond: 160e9,
  uploadBytesPerSecond: 4 * 25e9,
  downloadBytesPerSecond: 4 * 25e9,
  hostBytesPerSecond: 178e9,
  latencyMs: perLane(0.02),
  queue: 'streams',
  hostThreads: 'apart',
};
