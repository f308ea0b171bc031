/**
 * Decoding: tokens one after the other, streamed as they become known.
 *
 * Greedy decoding keeps the loop on the device: argmax leaves the next id where the embedding
 * lookup reads it, and the host submits a step before it knows the token of the one before. So a
 * driver's completion wait (4.5 ms on SwiftShader) and the host's own work overlap with the GPU's.
 * Where the token turns out to end the text, the step that ran ahead is taken back.
 */
import { Batch, subrange, throwIfAborted } from '@vramkit/core';
import { Sampler, type SamplingOptions } from './sampler.js';
import type { InferenceSession, Sequence } from './session.js';

/** Options of {@link generate}. */
export interface GenerateOptions extends SamplingOptions {
  /** Most tokens to give. */
  readonly maxTokens: number;
  /** Ids that end the text; they are not given. Default: the model's own. */
  readonly stopIds?: readonly number[];
  /** Stops at the next token. */
  readonly signal?: AbortSignal;
}

/**
 * Continues a prefilled sequence; gives token ids. The sequence holds every token given but the
 * last.
 * @throws VramError `invalid-argument` before a prefill, `out-of-memory` where the pool is
 * exhausted, `context-exceeded`, `aborted`, `device-lost`.
 */
export async function* generate(
  session: InferenceSession,
  sequence: Sequence,
  options: GenerateOptions,
): AsyncGenerator<number, void, void> {
  const sampler = new Sampler(options);
  const stops = new Set(options.stopIds ?? session.model.config.stopIds);
  const held = session.sequences.table(sequence.id).tokenCount;
  const first = sampler.sample(session.takeLastLogits(sequence));
  if (options.maxTokens < 1 || stops.has(first)) return;
  let given = 0;
  const steps = { ...options, stops, left: options.maxTokens - 1 };
  const rest = sampler.isGreedy
    ? greedySteps(session, sequence, first, steps)
    : sampledSteps(session, sequence, first, { ...steps, sampler });
  try {
    given = 1;
    yield first;
    for await (const token of rest) {
      given += 1;
      yield token;
    }
  } finally {
    // A stop token, an abort or a caller that leaves early find one step too many: take it back.
    const { tokenCount } = session.sequences.table(sequence.id);
    session.sequences.truncate(sequence.id, Math.min(tokenCount, held + Math.max(0, given - 1)));
  }
}

interface StepOptions {
  readonly stops: ReadonlySet<number>;
  /** Tokens still to give. */
  readonly left: number;
  readonly signal?: AbortSignal;
}

/** A step that is submitted, and the id that argmax chose in it. */
interface Submitted {
  readonly id: Promise<number>;
}

/** Records and submits one decode step. */
async function submitStep(
  session: InferenceSession,
  sequence: Sequence,
  ids: Uint32Array | 'device',
): Promise<Submitted> {
  session.checkContext(sequence, 1);
  const batch = new Batch(session.device, 'decode');
  const waiting = session.runStep(batch, sequence, ids);
  if (waiting !== undefined) await waiting;
  session.forward.logits(batch, 0, 1);
  session.forward.argmax(batch);
  batch.submit();
  const id = session.device.readback
    .read(subrange(session.forward.workspace.ids, 0, 4))
    .then((bytes) => new Uint32Array(bytes.buffer)[0] ?? 0);
  id.catch(() => undefined); // Awaited by the caller, unless an earlier step fails first.
  return { id };
}

async function* greedySteps(
  session: InferenceSession,
  sequence: Sequence,
  first: number,
  options: StepOptions,
): AsyncGenerator<number, void, void> {
  let pending =
    options.left > 0 ? await submitStep(session, sequence, Uint32Array.of(first)) : undefined;
  for (let left = options.left; pending !== undefined; left--) {
    throwIfAborted(options.signal);
    // The step before this one is settled now, so its block may be scored and one dropped.
    await sequence.eviction.afterAppend();
    const ahead = left > 1 ? submitStep(session, sequence, 'device') : undefined;
    ahead?.catch(() => undefined); // Awaited below.
    try {
      const token = await pending.id;
      if (options.stops.has(token)) return;
      yield token;
    } finally {
      // A step that waits for streamed layers must not go on when the caller has left.
      await ahead?.catch(() => undefined);
    }
    pending = await ahead;
  }
}

async function* sampledSteps(
  session: InferenceSession,
  sequence: Sequence,
  first: number,
  options: StepOptions & { readonly sampler: Sampler },
): AsyncGenerator<number, void, void> {
  let token = first;
  for (let left = options.left; left > 0; left--) {
    throwIfAborted(options.signal);
    await (
      await submitStep(session, sequence, Uint32Array.of(token))
    ).id;
    await sequence.eviction.afterAppend();
    token = options.sampler.sample(await session.readLogits());
    if (options.stops.has(token)) return;
    yield token;
  }
}

/**
 * Losses of `ids[1..]` given the sequence and the ids before each, in nats: teacher forcing, in
 * steps as large as the policy allows. The sequence then holds all ids but the last.
 * @returns [ids.length - 1] negative log-likelihoods; their mean's exponential is the perplexity.
 * @throws VramError as {@link InferenceSession.prefill}.
 */
export async function score(
  session: InferenceSession,
  sequence: Sequence,
  ids: Uint32Array,
  options: { readonly signal?: AbortSignal; readonly onProgress?: (done: number) => void } = {},
): Promise<Float32Array> {
  const count = ids.length - 1;
  const losses = new Float32Array(Math.max(0, count));
  session.checkContext(sequence, count);
  for (let done = 0; done < count;) {
    throwIfAborted(options.signal);
    const length = Math.min(
      count - done,
      session.chunkTokens,
      sequence.eviction.tokensToDecision(),
    );
    const step = new Batch(session.device, 'score');
    await session.runStep(step, sequence, ids.subarray(done, done + length));
    step.submit();
    for (let row = 0; row < length; row += session.maxLogitRows) {
      const rows = Math.min(session.maxLogitRows, length - row);
      const targets = ids.slice(done + row + 1, done + row + 1 + rows);
      const batch = new Batch(session.device, 'losses');
      session.forward.logits(batch, row, rows);
      session.forward.losses(batch, targets);
      batch.submit();
      const range = subrange(session.forward.workspace.losses, 0, rows * 4);
      const bytes = await session.device.readback.read(range);
      losses.set(new Float32Array(bytes.buffer), done + row);
    }
    await sequence.eviction.afterAppend();
    done += length;
    options.onProgress?.(done);
  }
  return losses;
}
