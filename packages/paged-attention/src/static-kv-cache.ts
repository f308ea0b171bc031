/**
 * A static KV cache: K and V of one sequence in buffers that are made once, for runtimes that keep
 * no cache of their own and take K and V as plain tensors, `past` in and `present` out (a session
 * of ONNX Runtime is one).
 *
 * Such a runtime makes new tensors for `present` in each step, each with a buffer of its own, and
 * drops those of the step before. Here every tensor has its buffer for the whole length from the
 * start, and a step only says how much of it is in use:
 *
 * ```
 *   'alternate'  present is longer than past and cannot overwrite it, so there are two sides of
 *                buffers. A step reads past from one and writes present to the other:
 *                  step n:    A [n tokens] -> B [n + 1 tokens]
 *                  step n+1:  B [n + 1]    -> A [n + 2]
 *   'in-place'   the operator appends to past itself, where past and present are one buffer: one
 *                side, its shape always the whole capacity.
 * ```
 *
 * It is not paged: one sequence, no sharing, no eviction, capacity paid for up front and twice
 * where sides alternate. It is for models whose attention is not ours; else use `PagedKvCache`.
 */
import {
  assertArgument,
  checkInteger,
  createTensor,
  fail,
  tensorFromBuffer,
  type Tensor,
  type VramDevice,
} from '@vramkit/core';
import type { KvDType } from './kv-layout.js';

/** Options of {@link createStaticKvCache}. */
export interface StaticKvCacheOptions {
  /** Layers of the model. */
  readonly layers: number;
  /** Key and value heads of a layer. */
  readonly kvHeads: number;
  /** Elements of a head. */
  readonly headDim: number;
  /** The most tokens that the sequence can have. */
  readonly capacityTokens: number;
  /** How the runtime stores K and V. */
  readonly dtype: KvDType;
  /** Whether the runtime writes `present` beside `past`, or appends to it. */
  readonly update: 'alternate' | 'in-place';
  /** Name in errors, traces and memory reports. Default: 'static kv'. */
  readonly label?: string;
}

/** K and V of one layer, each `[1, kvHeads, tokens, headDim]` from the start of its buffer. */
export interface KvPair {
  readonly keys: Tensor;
  readonly values: Tensor;
}

/** K and V of one sequence in buffers of constant size; see {@link createStaticKvCache}. */
export class StaticKvCache {
  readonly device: VramDevice;
  readonly capacityTokens: number;
  /** Bytes of all buffers. */
  readonly sizeBytes: number;
  readonly #options: StaticKvCacheOptions;
  /** By side and layer. */
  readonly #sides: readonly (readonly KvPair[])[];
  readonly #owned: Tensor[] = [];
  #tokens = 0;
  #side = 0;

  /** Use {@link createStaticKvCache}. */
  constructor(device: VramDevice, options: StaticKvCacheOptions) {
    for (const name of ['layers', 'kvHeads', 'headDim', 'capacityTokens'] as const) {
      checkInteger(name, options[name], 1);
    }
    this.device = device;
    this.capacityTokens = options.capacityTokens;
    this.#options = options;
    try {
      const sides = options.update === 'alternate' ? 2 : 1;
      this.#sides = Array.from({ length: sides }, () =>
        Array.from({ length: options.layers }, (_, layer) => ({
          keys: this.#create(`keys ${layer}`),
          values: this.#create(`values ${layer}`),
        })),
      );
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.sizeBytes = this.#owned.reduce((sum, tensor) => sum + tensor.sizeBytes, 0);
  }

  #create(name: string): Tensor {
    const { kvHeads, headDim, capacityTokens, dtype, label = 'static kv' } = this.#options;
    const shape = [1, kvHeads, capacityTokens, headDim];
    const tensor = createTensor(this.device, {
      ...{ dtype, shape, kind: 'kv', label: `${label} ${name}` },
    });
    this.#owned.push(tensor);
    const limit = this.device.limits.maxStorageBufferBindingSize;
    if (tensor.sizeBytes > limit) {
      fail('unsupported', `${tensor.sizeBytes} B of one layer exceed a binding of ${limit} B`, {
        sizeBytes: tensor.sizeBytes,
        limit,
      });
    }
    return tensor;
  }

  /** Tokens whose K and V are in the cache. */
  get tokens(): number {
    return this.#tokens;
  }

  /** What a step reads; the shape has all tokens so far, or the capacity where it is in place. */
  past(layer: number): KvPair {
    return this.#view(this.#side, layer, this.#tokens);
  }

  /**
   * Where a step over `newTokens` writes.
   * @throws VramError `out-of-memory` where they exceed the capacity.
   */
  present(layer: number, newTokens: number): KvPair {
    const tokens = this.#checkRoom(newTokens);
    return this.#view(this.#sides.length === 2 ? 1 - this.#side : 0, layer, tokens);
  }

  /**
   * Takes note of a step that has been submitted: its `present` is the next `past`.
   * @throws VramError as {@link present}.
   */
  advance(newTokens: number): void {
    this.#tokens = this.#checkRoom(newTokens);
    if (this.#sides.length === 2) this.#side = 1 - this.#side;
  }

  /** Forgets all tokens; the buffers stay. */
  reset(): void {
    this.#tokens = 0;
  }

  #checkRoom(newTokens: number): number {
    checkInteger('newTokens', newTokens, 1);
    const tokens = this.#tokens + newTokens;
    if (tokens > this.capacityTokens) {
      fail('out-of-memory', `${tokens} tokens exceed a static KV cache of ${this.capacityTokens}`, {
        tokens,
        capacityTokens: this.capacityTokens,
      });
    }
    return tokens;
  }

  #view(side: number, layer: number, tokens: number): KvPair {
    const pair = this.#sides[side]?.[layer];
    assertArgument(pair !== undefined, `layer ${layer} of ${this.#options.layers}`, { layer });
    if (this.#options.update === 'in-place') return pair;
    const { kvHeads, headDim, dtype } = this.#options;
    const shape = [1, kvHeads, tokens, headDim];
    const of = ({ buffer, offsetBytes, label }: Tensor): Tensor =>
      tensorFromBuffer(this.device, buffer, { dtype, shape, offsetBytes, label });
    return { keys: of(pair.keys), values: of(pair.values) };
  }

  /** Gives the buffers back; idempotent. */
  dispose(): void {
    for (const tensor of this.#owned) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/**
 * Takes all buffers of a static KV cache, each a `GPUBuffer` of its own; the caller disposes it.
 * @throws VramError `out-of-memory`, with nothing taken; `unsupported` where one layer exceeds a
 * binding.
 * @example
 * ```ts
 * import { openDevice } from '@vramkit/core';
 * import { createStaticKvCache } from '@vramkit/paged-attention';
 * using device = await openDevice();
 * const shape = { layers: 2, kvHeads: 4, headDim: 64, capacityTokens: 2048 };
 * using cache = createStaticKvCache(device, { ...shape, dtype: 'f16', update: 'alternate' });
 * const { keys } = cache.present(0, 1); // lend keys.buffer to the runtime, shape keys.shape
 * cache.advance(1);
 * console.log(keys.shape, cache.tokens);
 * ```
 */
export function createStaticKvCache(
  device: VramDevice,
  options: StaticKvCacheOptions,
): StaticKvCache {
  device.assertUsable();
  return new StaticKvCache(device, options);
}
