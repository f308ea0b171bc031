/**
 * A session on a device whose budget may be smaller than the model.
 *
 * The frame of the model and the session take their memory first, so what is left is known to the
 * byte; the placement planner says how many layers stay in it and how the others are streamed.
 * Streamed layers are loaded once into the slot that they will visit and read back from there: the
 * host's copy has the device's own layout.
 */
import { fail, subrange, VramError, type Clock, type TraceSink } from '@vramkit/core';
import type { VramDevice } from '@vramkit/core';
import { planPlacement, type InferenceMachine, type Placement } from '@vramkit/offload';
import { ModelLoader, type LoadModelOptions } from '../load-model.js';
import type { ModelFile } from '../model-file.js';
import { createSession, type InferenceSession, type SessionOptions } from '../session.js';
import type { LanguageModel, LayerWeights } from '../weights.js';
import { LayerStream, type StreamedLayer } from './layer-stream.js';
import { SlotMemory } from './slot-memory.js';

/** Options of {@link openSession}. */
export interface OpenSessionOptions extends SessionOptions, LoadModelOptions {
  /**
   * Rates that the plan's prediction rests on. Default: those of a mid-range card on a PCIe 3 link;
   * only the prediction depends on them, and the choice between one slot and two.
   */
  readonly machine?: InferenceMachine;
  /** Device bytes that are left free for others. Default: 0. */
  readonly spareBytes?: number;
  /** Receives uploads and device work of streamed layers. Default: none. */
  readonly trace?: TraceSink;
  /** Clock of the trace. Default: `performance.now`. */
  readonly now?: Clock;
}

/** A session and the model that it runs; disposing frees both. */
export interface OpenedSession extends Disposable {
  readonly session: InferenceSession;
  readonly model: LanguageModel;
  /** Where the layers are; `expert` shares count as part of their layers. */
  readonly placement: Placement;
  dispose(): void;
}

const CARD: InferenceMachine = {
  name: 'a card that nobody measured',
  deviceOperationsPerSecond: 5e12,
  deviceBytesPerSecond: 300e9,
  uploadBytesPerSecond: 8e9,
  downloadBytesPerSecond: 8e9,
  storageBytesPerSecond: 2e9,
  queue: 'single',
};
const READ_BYTES = 64 * 1024;

/** Readbacks of a row of logits, of ids and of norms, twice in flight. */
function readbackBytes(vocabularySize: number): number {
  return 4 * 2 ** Math.ceil(Math.log2(4 * vocabularySize)) + 2 * READ_BYTES;
}

function planLayers(
  device: VramDevice,
  loader: ModelLoader,
  { config }: ModelFile,
  options: OpenSessionOptions,
): Placement {
  const { limitBytes, liveBytes, paddingBytes } = device.memory.stats();
  const freeBytes = limitBytes - liveBytes - paddingBytes - (options.spareBytes ?? 0);
  const sizes = Array.from({ length: config.layers }, (_, index) => loader.layerBytes(index));
  const plan = planPlacement(
    {
      layers: config.layers,
      frameBytes: 0,
      layerBytes: Math.max(...sizes),
      experts: 0,
      expertsPerToken: 0,
      expertBytes: 0,
      kvBytesPerToken: 4 * config.kvHeads * config.headDim * config.layers,
      activeParameters: sizes.reduce((sum, size) => sum + size, 0),
    },
    {
      workload: { batch: 1, promptTokens: 512, outputTokens: 128 },
      machine: options.machine ?? CARD,
      // KV is the session's and has its memory already.
      fix: { kv: { device: 0, host: 1, storage: 0 } },
      budgets: {
        device: Math.max(0, freeBytes - readbackBytes(config.vocabularySize)),
        storage: 0,
      },
    },
  );
  if (!('infeasible' in plan)) {
    if (options.experts === undefined || plan.units.weights.host === 0) return plan;
    // A layer has one home: its slot or its cache.
    const few = `${plan.units.weights.device} of ${config.layers} layers fit beside their experts`;
    return fail('out-of-memory', `${few}; raise the budget or lower that of the experts`, {
      kind: 'weights',
      expertBytes: options.experts.budgetBytes,
    });
  }
  const missing = plan.infeasible.map(({ tier, missingBytes }) => `${missingBytes} B on ${tier}`);
  return fail('out-of-memory', `layers lack ${missing.join(' and ')}; raise the budget`, {
    kind: 'weights',
    shortfallBytes: plan.infeasible[0]?.missingBytes,
  });
}

/** Loads each streamed layer into its slot and keeps what is there then. */
async function loadStreamed(
  device: VramDevice,
  loader: ModelLoader,
  indices: readonly number[],
  slots: readonly SlotMemory[],
): Promise<StreamedLayer[]> {
  const layers: StreamedLayer[] = [];
  for (const [position, index] of indices.entries()) {
    const slot = slots[position % slots.length];
    if (slot === undefined) fail('invariant', 'there are no slots');
    slot.rewind();
    const weights = await loader.layer(index, slot);
    const { used } = slot;
    const bytes = new Uint8Array(used.sizeBytes);
    for (let at = 0; at < bytes.length; at += READ_BYTES) {
      const part = subrange(used, at, Math.min(READ_BYTES, bytes.length - at));
      bytes.set(await device.readback.read(part), at);
    }
    layers.push({ index, weights, bytes, slot: used });
  }
  return layers;
}

/**
 * Loads a model and makes a session of it, within the device's budget; the caller disposes it.
 * @throws VramError `out-of-memory` naming kind and shortfall where not even one layer fits beside
 * the session; what `loadModel` and `createSession` throw.
 */
export async function openSession(
  device: VramDevice,
  file: ModelFile,
  options: OpenSessionOptions,
): Promise<OpenedSession> {
  const { config } = file;
  const loader = new ModelLoader(device, file, options, 'write-buffer');
  const slots: SlotMemory[] = [];
  let session: InferenceSession | undefined;
  let stream: LayerStream | undefined;
  const dispose = (): void => {
    stream?.dispose();
    session?.dispose();
    loader.release();
    for (const slot of slots.splice(0)) slot.dispose();
  };
  try {
    const frame = await loader.frame();
    const layers: (LayerWeights | undefined)[] = [];
    const model = {
      config,
      ...frame,
      // Filled below, before anything runs.
      layers: layers as LayerWeights[],
      stream: undefined as LayerStream | undefined,
      dispose,
      [Symbol.dispose]: dispose,
    };
    session = createSession(device, model, options);
    const placement = planLayers(device, loader, file, options);
    const resident = placement.units.weights.device;
    // Streamed layers are spread, so that each has resident ones to move behind.
    const stays = (index: number): boolean =>
      Math.floor(((index + 1) * resident) / config.layers) >
      Math.floor((index * resident) / config.layers);
    const away: number[] = [];
    for (let index = 0; index < config.layers; index++) {
      if (stays(index)) layers[index] = await loader.layer(index);
      else away.push(index);
    }
    if (away.length > 0) {
      const largest = Math.max(...away.map((index) => loader.layerBytes(index)));
      const isDouble = placement.streaming === 'double-buffered';
      for (let slot = 0; slot < (isDouble ? 2 : 1); slot++) {
        slots.push(new SlotMemory(device.memory, largest, `layer slot ${slot}`));
      }
      const streamed = await loadStreamed(device, loader, away, slots);
      for (const { index, weights } of streamed) layers[index] = weights;
      const ring = largest / (isDouble ? 2 : 8);
      const { trace, now } = options;
      stream = new LayerStream(device, streamed, {
        stagingBytes: Math.ceil(ring / 256) * 256,
        ...(trace === undefined ? {} : { trace }),
        ...(now === undefined ? {} : { now }),
      });
      model.stream = stream;
    }
    await device.settle();
    return { session, model, placement, dispose, [Symbol.dispose]: dispose };
  } catch (error) {
    dispose();
    throw error instanceof VramError
      ? error
      : new VramError('invariant', `${file.path} was not loaded`, { cause: error });
  } finally {
    loader.finish();
  }
}
