/**
 * Counts of everything a device creates or submits.
 *
 * The counters are the proof of the rule that steady state allocates nothing: take a snapshot after
 * warm-up, run a step, and compare.
 */

/** Monotonic counts since the device was opened or adopted. */
export interface DeviceCounters {
  /** `GPUBuffer`s created through vramkit. */
  buffersCreated: number;
  /** `GPUBindGroup`s created. */
  bindGroupsCreated: number;
  /** `GPUComputePipeline`s created. */
  pipelinesCreated: number;
  /** Dispatches recorded. */
  dispatches: number;
  /** Command buffers submitted. */
  submits: number;
  /** Bytes moved host to device. */
  uploadedBytes: number;
  /** Bytes moved device to host. */
  downloadedBytes: number;
}

/** All counts at zero. */
export function createCounters(): DeviceCounters {
  return {
    buffersCreated: 0,
    bindGroupsCreated: 0,
    pipelinesCreated: 0,
    dispatches: 0,
    submits: 0,
    uploadedBytes: 0,
    downloadedBytes: 0,
  };
}

/** `after - before`, count by count. */
export function countersSince(before: DeviceCounters, after: DeviceCounters): DeviceCounters {
  return {
    buffersCreated: after.buffersCreated - before.buffersCreated,
    bindGroupsCreated: after.bindGroupsCreated - before.bindGroupsCreated,
    pipelinesCreated: after.pipelinesCreated - before.pipelinesCreated,
    dispatches: after.dispatches - before.dispatches,
    submits: after.submits - before.submits,
    uploadedBytes: after.uploadedBytes - before.uploadedBytes,
    downloadedBytes: after.downloadedBytes - before.downloadedBytes,
  };
}
