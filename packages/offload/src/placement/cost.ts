/**
 * How long a workload takes with a share of each kind away from the device. Linear in the shares,
 * so that a linear program can look for the best ones.
 *
 * A pass is one run through all layers: a chunk of a prompt, or one decode step of the batch. In a
 * pass the device computes for `max(operations, bytes read)`, the link carries what is away from
 * the device, and storage reads what is farther than the host. They overlap, but for link and
 * device where one queue serves both:
 *
 *     pass = max(compute + link, storage)   single queue
 *     pass = max(compute, link, storage)    streams
 *
 * The rate of a link is that of a full ring, in which the host fills one part while the device
 * copies another. Layers that are streamed through a single slot take turns at that too: they pay
 * for the link twice, and nothing hides it.
 *
 * A batch of b tokens reads a share 1 - (1 - k / n)^b of the experts: routing as if by dice, which
 * is the worst case for a cache. KV is counted at the mean length of its pass.
 */
import { kindSizes } from './inference.js';
import type {
  InferenceMachine,
  InferenceModel,
  InferenceWorkload,
  PerTier,
  PlacedKind,
  Streaming,
} from './inference.js';

/** Shares of a kind by tier; they add up to 1. */
export type Shares = Readonly<Record<PlacedKind, PerTier>>;

/** One kind of pass. */
export interface PassCost {
  /** How often it happens in the workload. */
  readonly count: number;
  /** Milliseconds of the device, wherever the bytes are. */
  readonly computeMs: number;
  /** Milliseconds of the link if all of a kind is away from the device. */
  readonly linkMs: Readonly<Record<PlacedKind, number>>;
  /** Milliseconds of storage if all of a kind is there. */
  readonly storageMs: Readonly<Record<PlacedKind, number>>;
}

/** Passes of a workload. */
export interface WorkloadCost {
  readonly prefill: PassCost;
  readonly decode: PassCost;
  readonly queue: InferenceMachine['queue'];
}

/** What limits a pass. */
export type PassBound = 'compute' | 'link' | 'storage';

/** Costs of all passes. */
export function workloadCost(
  model: InferenceModel,
  workload: InferenceWorkload,
  machine: InferenceMachine,
  streaming: Streaming,
): WorkloadCost {
  const turns = streaming === 'single-buffered' ? 2 : 1;
  const { batch, promptTokens, outputTokens } = workload;
  const chunk = Math.min(workload.chunkTokens ?? 128, promptTokens);
  const pass = (count: number, tokens: number, contextTokens: number): PassCost => {
    const sizes = kindSizes(model, workload);
    const { experts, expertsPerToken } = model;
    const touched = experts === 0 ? 0 : 1 - (1 - expertsPerToken / experts) ** tokens;
    const read = {
      weights: sizes.weights.totalBytes,
      experts: touched * sizes.experts.totalBytes,
      kv: contextTokens * model.kvBytesPerToken,
    };
    const written = tokens * model.kvBytesPerToken;
    const ms = (bytes: number, perSecond: number): number => (1e3 * bytes) / perSecond;
    const { uploadBytesPerSecond: up, downloadBytesPerSecond: down } = machine;
    const bytes = model.frameBytes + read.weights + read.experts + read.kv;
    return {
      count,
      computeMs: Math.max(
        ms(2 * model.activeParameters * tokens, machine.deviceOperationsPerSecond),
        ms(bytes, machine.deviceBytesPerSecond),
      ),
      linkMs: {
        weights: turns * ms(read.weights, up),
        experts: turns * ms(read.experts, up),
        kv: ms(read.kv, up) + ms(written, down),
      },
      storageMs: {
        weights: ms(read.weights, machine.storageBytesPerSecond),
        experts: ms(read.experts, machine.storageBytesPerSecond),
        kv: ms(read.kv + written, machine.storageBytesPerSecond),
      },
    };
  };
  return {
    prefill: pass(batch * Math.ceil(promptTokens / chunk), chunk, promptTokens / 2),
    decode: pass(outputTokens, batch, batch * (promptTokens + outputTokens / 2)),
    queue: turns === 2 ? 'single' : machine.queue,
  };
}

/** Milliseconds of one pass, and what it waits for. */
export function passMs(
  pass: PassCost,
  shares: Shares,
  queue: InferenceMachine['queue'],
): { readonly ms: number; readonly bound: PassBound } {
  let link = 0;
  let storage = 0;
  for (const kind of ['weights', 'experts', 'kv'] as const) {
    link += (shares[kind].host + shares[kind].storage) * pass.linkMs[kind];
    storage += shares[kind].storage * pass.storageMs[kind];
  }
  const { computeMs } = pass;
  const near = queue === 'single' ? computeMs + link : Math.max(computeMs, link);
  const ms = Math.max(near, storage);
  if (storage > near) return { ms, bound: 'storage' };
  return { ms, bound: link > computeMs ? 'link' : 'compute' };
}

/** Milliseconds of the whole workload. */
export function totalMs({ prefill, decode, queue }: WorkloadCost, shares: Shares): number {
  return (
    prefill.count * passMs(prefill, shares, queue).ms +
    decode.count * passMs(decode, shares, queue).ms
  );
}
