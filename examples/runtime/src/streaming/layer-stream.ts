/**
 * Layers whose weights visit the device: the host keeps their bytes, a few slots on the device hold
 * one layer each, and a ring of mapped staging buffers carries the next layer up while the present
 * one computes.
 *
 * ```
 * device   | compute 4 | copy 5 | compute 5 | copy 6 | ...
 * host       fill 5 ───────┘      fill 6 ───────┘
 * ```
 *
 * A layer is moved in the order of the model, around and around. The move of the next one starts
 * when the work of the present one is submitted; one queue orders copies behind the work that still
 * reads the slot, so nothing waits but the host for a staging buffer. After creation no buffer is
 * made. One pass at a time: a pass takes its layers in order.
 */
import {
  allocate,
  assertArgument,
  BufferUsage,
  type Allocation,
  type Clock,
  type TraceSink,
  type VramDevice,
} from '@vramkit/core';
import type { LayerSource, LayerWeights } from '../weights.js';

/** One layer that is streamed. */
export interface StreamedLayer {
  /** Its number in the model. */
  readonly index: number;
  /** Views of the slot that it visits. */
  readonly weights: LayerWeights;
  /** What the slot holds while the layer is there. */
  readonly bytes: Uint8Array;
  /** The slot, from its start. */
  readonly slot: Allocation;
}

/** Options of {@link LayerStream}. */
export interface LayerStreamOptions {
  /** Bytes of one of the two staging buffers, a multiple of 4. */
  readonly stagingBytes: number;
  /** Receives a transfer for each part that the host fills, and a span for each layer's work. */
  readonly trace?: TraceSink;
  /** Clock of the trace, milliseconds. Default: `performance.now`. */
  readonly now?: Clock;
}

const MAP_WRITE = 2;
const RING = 2;

/** See the head of this file. */
export class LayerStream implements LayerSource {
  readonly #device: VramDevice;
  readonly #layers: readonly StreamedLayer[];
  readonly #byIndex = new Map<number, number>();
  readonly #staging: readonly Allocation[];
  readonly #ready: Promise<void>[];
  readonly #trace: TraceSink | undefined;
  readonly #now: Clock;
  #turn = 0;
  /** Position of the layer that is on its way or there, and when all of it is submitted. */
  #moving: { readonly position: number; readonly submitted: Promise<void> } | undefined;
  /** Which layer each slot's buffer holds. */
  readonly #held = new Map<GPUBuffer, number>();
  #gpuEndMs = 0;
  #disposed = false;

  /**
   * Takes the staging ring.
   * @throws VramError `out-of-memory`.
   */
  constructor(
    device: VramDevice,
    layers: readonly StreamedLayer[],
    { stagingBytes, trace, now = () => performance.now() }: LayerStreamOptions,
  ) {
    assertArgument(layers.length > 0, 'there are no layers to stream');
    this.#device = device;
    this.#layers = layers;
    this.#trace = trace;
    this.#now = now;
    layers.forEach(({ index }, position) => this.#byIndex.set(index, position));
    const usage = BufferUsage.mapWrite | BufferUsage.copySource;
    const staging: Allocation[] = [];
    try {
      for (let slot = 0; slot < RING; slot++) {
        const request = { sizeBytes: stagingBytes, kind: 'staging', label: 'layers up' } as const;
        staging.push(allocate(device.memory, { ...request, usage }));
      }
    } catch (error) {
      for (const each of staging) device.memory.free(each);
      throw error;
    }
    this.#staging = staging;
    this.#ready = staging.map(({ buffer }) => observed(buffer.mapAsync(MAP_WRITE)));
  }

  has(index: number): boolean {
    return this.#byIndex.has(index);
  }

  async take(index: number): Promise<LayerWeights> {
    const position = this.#position(index);
    if (this.#moving?.position !== position) this.#start(position);
    try {
      await this.#moving?.submitted;
    } catch (error) {
      this.#moving = undefined;
      throw error;
    }
    return (this.#layers[position] as StreamedLayer).weights; // #position checked it
  }

  advance(index: number): void {
    this.#traceWork(`layer ${index}`);
    this.#start((this.#position(index) + 1) % this.#layers.length);
  }

  #position(index: number): number {
    const position = this.#byIndex.get(index) ?? -1;
    assertArgument(position >= 0, `layer ${index} is not streamed`);
    return position;
  }

  #start(position: number): void {
    const before = this.#moving?.submitted.catch(() => undefined);
    this.#moving = { position, submitted: observed(this.#move(position, before)) };
  }

  async #move(position: number, before: Promise<void> | undefined): Promise<void> {
    await before;
    const layer = this.#layers[position];
    if (layer === undefined || this.#held.get(layer.slot.buffer) === position) return;
    const { bytes, slot } = layer;
    this.#held.delete(slot.buffer);
    const { gpuDevice, counters } = this.#device;
    for (let done = 0; done < bytes.length;) {
      const turn = this.#turn;
      const staging = this.#staging[turn];
      if (staging === undefined) return;
      this.#turn = (turn + 1) % RING;
      await this.#device.orLost(this.#ready[turn] ?? Promise.resolve());
      const start = this.#now();
      const part = bytes.subarray(done, done + staging.sizeBytes);
      new Uint8Array(staging.buffer.getMappedRange(0, part.length)).set(part);
      staging.buffer.unmap();
      const encoder = gpuDevice.createCommandEncoder({ label: 'layer up' });
      const to = slot.offsetBytes + done;
      encoder.copyBufferToBuffer(staging.buffer, 0, slot.buffer, to, part.length);
      gpuDevice.queue.submit([encoder.finish()]);
      counters.submits += 1;
      counters.uploadedBytes += part.length;
      this.#ready[turn] = observed(staging.buffer.mapAsync(MAP_WRITE));
      this.#trace?.({
        type: 'transfer',
        direction: 'upload',
        label: `layer ${layer.index}`,
        timeMs: start,
        durationMs: this.#now() - start,
        sizeBytes: part.length,
      });
      done += part.length;
    }
    this.#held.set(slot.buffer, position);
  }

  /** A span from submission, or the end of the work before, until the queue is done. */
  #traceWork(label: string): void {
    const trace = this.#trace;
    if (trace === undefined) return;
    const submittedMs = this.#now();
    void this.#device.gpuDevice.queue.onSubmittedWorkDone().then(
      () => {
        const timeMs = Math.max(submittedMs, this.#gpuEndMs);
        this.#gpuEndMs = Math.max(timeMs, this.#now());
        trace({ type: 'phase', lane: 'gpu', label, timeMs, durationMs: this.#gpuEndMs - timeMs });
      },
      () => undefined, // The device is lost, which the pass reports.
    );
  }

  /** Frees the staging ring; slots are their owner's. Idempotent. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    for (const each of this.#staging) this.#device.memory.free(each);
  }
}

/** A promise whose failure is seen by whoever awaits it, or by nobody. */
function observed(promise: Promise<void>): Promise<void> {
  promise.catch(() => undefined);
  return promise;
}
