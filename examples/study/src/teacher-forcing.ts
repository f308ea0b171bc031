/**
 * Reading known text into a sequence, with the logits behind each token.
 *
 * Steps are as large as the policy allows: it is asked only where a block has filled, so all tokens
 * up to there see the same cache whether they come one by one or at once.
 */
import { Batch, createTensor, subrange, type Tensor } from '@vramkit/core';
import type { InferenceSession, Sequence } from '@vramkit/example-runtime';
import type { LayerRows } from './attention-error.js';

/** Options of {@link feed}. */
export interface FeedOptions {
  /** Most tokens of a step. Default: what the session takes. 1 for decode steps. */
  readonly stepTokens?: number;
  /** First token whose logits are wanted. Default: 0. */
  readonly firstRow?: number;
}

/** What {@link feed} found. */
export interface Fed {
  /** Logits behind each token from `firstRow` on, [vocabulary] each. */
  readonly rows: readonly Float32Array[];
  /** Time of the model's steps, readback of logits included. */
  readonly stepMs: number;
  /** Time of the policy's decisions and what they read and move. */
  readonly evictionMs: number;
  /** Most bytes of K, V and norms that the sequence held. */
  readonly kvPeakBytes: number;
}

/** Appends `ids` to a sequence. */
export async function feed(
  session: InferenceSession,
  sequence: Sequence,
  ids: Uint32Array,
  options: FeedOptions = {},
): Promise<Fed> {
  const { stepTokens = session.chunkTokens, firstRow = 0 } = options;
  const rows: Float32Array[] = [];
  let stepMs = 0;
  let evictionMs = 0;
  let kvPeakBytes = 0;
  for (let done = 0; done < ids.length;) {
    const { eviction } = sequence;
    const count = Math.min(ids.length - done, stepTokens, eviction.tokensToDecision());
    const start = performance.now();
    const batch = new Batch(session.device, 'step');
    session.recordStep(batch, sequence, ids.subarray(done, done + count));
    batch.submit();
    const first = Math.max(0, firstRow - done);
    rows.push(...(await readLogits(session, first, count - first)));
    await session.device.settle();
    const between = performance.now();
    kvPeakBytes = Math.max(kvPeakBytes, session.kvBytes(sequence));
    await eviction.afterAppend();
    await session.device.settle();
    stepMs += between - start;
    evictionMs += performance.now() - between;
    done += count;
  }
  return { rows, stepMs, evictionMs, kvPeakBytes };
}

/** Logits of rows of the step that was submitted last. */
async function readLogits(
  session: InferenceSession,
  first: number,
  count: number,
): Promise<Float32Array[]> {
  const { device, forward, maxLogitRows } = session;
  const rowBytes = session.model.config.vocabularySize * 4;
  const rows: Float32Array[] = [];
  for (let done = 0; done < count; done += maxLogitRows) {
    const here = Math.min(maxLogitRows, count - done);
    const batch = new Batch(device, 'logits');
    forward.logits(batch, first + done, here);
    batch.submit();
    const range = subrange(forward.workspace.logits, 0, here * rowBytes);
    const bytes = await device.readback.read(range);
    for (let row = 0; row < here; row++) {
      rows.push(new Float32Array(bytes.buffer, row * rowBytes, rowBytes / 4));
    }
  }
  return rows;
}

/**
 * Appends `ids`, at most a chunk, and gives what each layer's attention works on: the rotated
 * queries of `ids`, and the keys and values of everything the sequence holds.
 */
export async function captureLayers(
  session: InferenceSession,
  sequence: Sequence,
  ids: Uint32Array,
): Promise<LayerRows[]> {
  const { device, cache, model } = session;
  const { layers, heads, kvHeads, headDim } = model.config;
  const width = (heads + 2 * kvHeads) * headDim;
  const shape = [layers, ids.length, width];
  using copies: Tensor = createTensor(device, {
    ...({ dtype: 'f32', kind: 'activations' } as const),
    shape,
    label: 'queries of all layers',
  });
  const layerBytes = ids.length * width * 4;
  const batch = new Batch(device, 'observed step');
  session.recordStep(batch, sequence, ids, undefined, (step, layer) => {
    const rows = subrange(session.forward.workspace.queryKeyValue, 0, layerBytes);
    step.copy(rows, subrange(copies, layer * layerBytes, layerBytes));
  });
  batch.submit();
  const rows = await copies.readFloats();
  const table = session.sequences.table(sequence.id);
  const slots = Uint32Array.from({ length: table.cachedTokenCount }, (_, i) => table.slotAt(i));
  const captured: LayerRows[] = [];
  for (let layer = 0; layer < layers; layer++) {
    const queries = new Float32Array(ids.length * heads * headDim);
    for (let token = 0; token < ids.length; token++) {
      const from = (layer * ids.length + token) * width;
      queries.set(rows.subarray(from, from + heads * headDim), token * heads * headDim);
    }
    captured.push({ heads, kvHeads, headDim, queries, ...(await cache.readKv(layer, slots)) });
  }
  return captured;
}
