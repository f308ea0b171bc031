/**
 * What a placement is planned for: a model as byte counts, a workload, the rates of a machine and
 * budgets by tier. Plain JSON.
 *
 * Three kinds of bytes can move between tiers. `weights` are what every token reads: attention,
 * norms, routers, dense feed-forward. `experts` are read by the tokens that were routed to them.
 * `kv` is read by the tokens of its own sequence. The frame (embedding, final norm, head) and the
 * activations stay on the device.
 */
import { assertArgument, checkInteger } from '@vramkit/core';

/** Levels of memory, the nearest first. */
export const PLACEMENT_TIERS = ['device', 'host', 'storage'] as const;
/** A level of memory. */
export type PlacementTier = (typeof PLACEMENT_TIERS)[number];

/** Kinds of bytes that can be away from the device. */
export const PLACED_KINDS = ['weights', 'experts', 'kv'] as const;
/** A kind of bytes that can be away from the device. */
export type PlacedKind = (typeof PLACED_KINDS)[number];

/** A number for each tier. */
export type PerTier = Readonly<Record<PlacementTier, number>>;

/** A model as a planner sees it. */
export interface InferenceModel {
  readonly layers: number;
  /** Bytes outside the layers; always on the device. */
  readonly frameBytes: number;
  /** Bytes of one layer without its experts. */
  readonly layerBytes: number;
  /** Experts of one layer; 0 for a dense model. */
  readonly experts: number;
  /** Experts that one token reads. */
  readonly expertsPerToken: number;
  /** Bytes of one expert. */
  readonly expertBytes: number;
  /** Bytes of K and V of one token in all layers. */
  readonly kvBytesPerToken: number;
  /** Weights that one token is multiplied with; two operations each. */
  readonly activeParameters: number;
  /** Bytes of activations and other device memory that does not move. Default: 0. */
  readonly workspaceBytes?: number;
}

/** What is asked of the model. */
export interface InferenceWorkload {
  /** Sequences that decode together. */
  readonly batch: number;
  /** Tokens of each prompt. */
  readonly promptTokens: number;
  /** Tokens given for each prompt. */
  readonly outputTokens: number;
  /** Tokens of one prefill pass. Default: 128. */
  readonly chunkTokens?: number;
}

/** Rates of a machine, each what it reaches alone. */
export interface InferenceMachine {
  /** Names the measurement; plans carry it. */
  readonly name: string;
  /** Operations per second of matrix products on the device. */
  readonly deviceOperationsPerSecond: number;
  /** Bytes per second that kernels read from device memory. */
  readonly deviceBytesPerSecond: number;
  /** Host to device, bytes per second. */
  readonly uploadBytesPerSecond: number;
  /** Device to host, bytes per second. */
  readonly downloadBytesPerSecond: number;
  /** Storage to host, bytes per second. */
  readonly storageBytesPerSecond: number;
  /**
   * Whether uploads run beside the device's work (`'streams'`) or take turns with it (`'single'`).
   */
  readonly queue: 'single' | 'streams';
}

/** The most that a plan may take, bytes. 0 forbids a tier. Default of each: no limit. */
export type PlacementBudgets = Partial<PerTier>;

/** Bytes of each kind in all, and the least unit that moves. */
export interface KindSize {
  readonly totalBytes: number;
  readonly unitBytes: number;
}

/** Sizes of the kinds for a workload; KV at its largest, in units of 16 tokens. */
export function kindSizes(
  model: InferenceModel,
  workload: InferenceWorkload,
): Readonly<Record<PlacedKind, KindSize>> {
  const { layers, layerBytes, experts, expertBytes, kvBytesPerToken } = model;
  const blocks = Math.ceil((workload.promptTokens + workload.outputTokens) / 16) * workload.batch;
  const block = 16 * kvBytesPerToken;
  return {
    weights: { totalBytes: layers * layerBytes, unitBytes: layerBytes },
    experts: { totalBytes: layers * experts * expertBytes, unitBytes: expertBytes },
    kv: { totalBytes: blocks * block, unitBytes: block },
  };
}

/** Device bytes that nothing can move: frame and activations. */
export function fixedDeviceBytes(model: InferenceModel): number {
  return model.frameBytes + (model.workspaceBytes ?? 0);
}

/** How layers that are away from the device reach it. */
export type Streaming = 'none' | 'single-buffered' | 'double-buffered';

/**
 * Device bytes of streaming whole layers with their experts. Double-buffered: two slots and a
 * staging ring of a layer, so that the next layer moves while one computes. Single-buffered: one
 * slot and a ring of a quarter; the host fills it while the device waits.
 */
export function streamingBytes(model: InferenceModel, streaming: Streaming): number {
  if (streaming === 'none') return 0;
  const layer = model.layerBytes + model.experts * model.expertBytes;
  return streaming === 'double-buffered' ? 3 * layer : Math.ceil(1.25 * layer);
}

/**
 * Checks that counts are whole and rates positive.
 * @throws VramError `invalid-argument` naming the member.
 */
export function checkInference(
  model: InferenceModel,
  workload: InferenceWorkload,
  machine: InferenceMachine,
): void {
  for (const name of ['layers', 'layerBytes', 'kvBytesPerToken', 'activeParameters'] as const) {
    checkInteger(name, model[name], 1);
  }
  for (const name of ['frameBytes', 'experts', 'expertBytes', 'expertsPerToken'] as const) {
    checkInteger(name, model[name]);
  }
  const { experts, expertsPerToken, expertBytes } = model;
  assertArgument(
    experts === 0 ? expertsPerToken + expertBytes === 0 : expertsPerToken >= 1 && expertBytes >= 1,
    `${experts} experts of ${expertBytes} B, ${expertsPerToken} a token`,
  );
  assertArgument(expertsPerToken <= experts, `a token reads ${expertsPerToken} of ${experts}`);
  for (const name of ['batch', 'promptTokens', 'outputTokens'] as const) {
    checkInteger(name, workload[name], 1);
  }
  checkInteger('chunkTokens', workload.chunkTokens ?? 128, 1);
  for (const [name, rate] of Object.entries(machine)) {
    if (typeof rate === 'number') assertArgument(rate > 0, `${name} must be above 0, is ${rate}`);
  }
}
