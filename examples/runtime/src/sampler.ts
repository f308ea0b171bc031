/**
 * Sampling on the host: temperature, top-k and top-p over one row of logits, with a seeded
 * generator.
 *
 * Greedy decoding does not come here; its argmax stays on the device.
 */
import { assertArgument, checkInteger } from '@vramkit/core';

/** How the next token is chosen. */
export interface SamplingOptions {
  /** Divides the logits; 0 is greedy. Default: 0. */
  readonly temperature?: number;
  /** Keeps the k most likely tokens; 0 keeps all. Default: 0. */
  readonly topK?: number;
  /** Keeps the smallest set of tokens with this much probability, (0, 1]. Default: 1. */
  readonly topP?: number;
  /** Seed of the generator. Default: 0. */
  readonly seed?: number;
}

/** Draws token ids from logits. */
export class Sampler {
  readonly #temperature: number;
  readonly #topK: number;
  readonly #topP: number;
  #state: number;

  /** @throws VramError `invalid-argument` for a negative temperature, a topP outside (0, 1], ... */
  constructor(options: SamplingOptions = {}) {
    const { temperature = 0, topK = 0, topP = 1, seed = 0 } = options;
    assertArgument(temperature >= 0 && Number.isFinite(temperature), `temperature ${temperature}`);
    assertArgument(topP > 0 && topP <= 1, `topP ${topP} is not in (0, 1]`);
    this.#temperature = temperature;
    this.#topK = checkInteger('topK', topK);
    this.#topP = topP;
    this.#state = (checkInteger('seed', seed) ^ 0x9e3779b9) >>> 0 || 1;
  }

  /** Whether the most likely token is always taken. */
  get isGreedy(): boolean {
    return this.#temperature === 0;
  }

  /** Draws an index into `logits`. */
  sample(logits: Float32Array): number {
    const order = Array.from(logits.keys()).sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0));
    const kept = this.#topK === 0 ? order : order.slice(0, this.#topK);
    const largest = logits[kept[0] ?? 0] ?? 0;
    if (this.isGreedy) return kept[0] ?? 0;
    const weights = kept.map((id) => Math.exp(((logits[id] ?? 0) - largest) / this.#temperature));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    let nucleus = 0;
    let count = 0;
    while (count < weights.length && nucleus < this.#topP * total) nucleus += weights[count++] ?? 0;
    let draw = this.#uniform() * nucleus;
    for (let i = 0; i < count; i++) {
      draw -= weights[i] ?? 0;
      if (draw < 0) return kept[i] ?? 0;
    }
    return kept[count - 1] ?? 0;
  }

  /** Marsaglia's xorshift32, in [0, 1). */
  #uniform(): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state / 2 ** 32;
  }
}
