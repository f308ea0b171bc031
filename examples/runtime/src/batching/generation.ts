/**
 * One request to a batch engine: its tokens, and the stream in which they leave.
 *
 * The engine pushes, the caller pulls. What was pushed and not pulled waits here, at most
 * `maxTokens` ids; a caller that is slow delays nobody.
 */
import { Sampler, type SamplingOptions } from '../sampler.js';

/** Options of `BatchEngine.submit`. */
export interface GenerationOptions extends SamplingOptions {
  /** Most tokens to give. With 0 the prompt is computed, for the prefix cache. */
  readonly maxTokens: number;
  /** Ids that end the text; they are not given. Default: the model's own. */
  readonly stopIds?: readonly number[];
  /** Frees the request's blocks before its next step. */
  readonly signal?: AbortSignal;
  /** Its cached prefix is shared within a namespace only. Default: '', shared with all. */
  readonly namespace?: string;
}

/** Why a generation ended: a stop id, `maxTokens` or the context, or the caller. */
export type FinishReason = 'stop' | 'length' | 'cancelled';

/** What a caller sees of its request. */
export interface Generation extends AsyncIterable<number> {
  /** Tokens of the prompt. */
  readonly promptTokens: number;
  /** Tokens of the prompt whose K and V were in the cache when it first ran. */
  readonly cachedTokens: number;
  /** Tokens generated so far. */
  readonly generatedTokens: number;
  /** Why it ended; `undefined` while it goes on. */
  readonly finishReason: FinishReason | undefined;
  /** Ends it: its blocks are freed before the next step. Idempotent. */
  cancel(): void;
}

/** A request as the engine keeps it. */
export class PendingGeneration implements Generation {
  readonly namespace: string;
  readonly sampler: Sampler;
  readonly maxTokens: number;
  readonly promptTokens: number;
  /** Set when the request first runs. */
  cachedTokens = 0;
  /** Whether it ever ran. */
  hasRun = false;
  /** Leading tokens that were ever in the cache; computing them again is no progress. */
  computedTokens = 0;
  finishReason: FinishReason | undefined;
  readonly #stops: ReadonlySet<number>;
  readonly #all: Uint32Array;
  #length: number;
  readonly #ready: number[] = [];
  #error: unknown;
  #wake: (() => void) | undefined;
  readonly #onCancel: () => void;
  #signal: AbortSignal | undefined;
  readonly #onAbort = (): void => this.cancel();

  /** @throws VramError `invalid-argument` where a sampling option is out of range. */
  constructor(
    prompt: Uint32Array,
    options: GenerationOptions,
    parts: { readonly stopIds: readonly number[]; readonly onCancel: () => void },
  ) {
    this.namespace = options.namespace ?? '';
    this.sampler = new Sampler(options);
    this.maxTokens = options.maxTokens;
    this.promptTokens = prompt.length;
    this.#stops = new Set(parts.stopIds);
    this.#all = new Uint32Array(prompt.length + options.maxTokens);
    this.#all.set(prompt);
    this.#length = prompt.length;
    this.#onCancel = parts.onCancel;
  }

  /** The prompt and what was generated. */
  get tokens(): Uint32Array {
    return this.#all.subarray(0, this.#length);
  }

  get generatedTokens(): number {
    return this.#length - this.promptTokens;
  }

  /** Is cancelled when `signal` aborts; one that outlives the request keeps nothing of it. */
  follow(signal: AbortSignal | undefined): void {
    this.#signal = signal;
    signal?.addEventListener('abort', this.#onAbort, { once: true });
  }

  /** Takes the next token; says whether the request has ended. */
  accept(token: number): boolean {
    if (this.maxTokens === 0) this.finish('length');
    else if (this.#stops.has(token)) this.finish('stop');
    else {
      this.#all[this.#length++] = token;
      this.#ready.push(token);
      if (this.generatedTokens === this.maxTokens) this.finish('length');
      else this.#notify();
    }
    return this.finishReason !== undefined;
  }

  /** Ends the stream after what is ready. */
  finish(reason: FinishReason): void {
    this.finishReason ??= reason;
    this.#signal?.removeEventListener('abort', this.#onAbort);
    this.#notify();
  }

  /** Ends the stream with an error after what is ready. */
  fail(error: unknown): void {
    this.#error ??= error;
    this.finish('cancelled');
  }

  cancel(): void {
    if (this.finishReason === undefined) this.#onCancel();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<number, void, void> {
    try {
      for (;;) {
        for (let next = this.#ready.shift(); next !== undefined; next = this.#ready.shift()) {
          yield next;
        }
        if (this.#error !== undefined) throw this.#error;
        if (this.finishReason !== undefined) return;
        await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.cancel();
    }
  }

  #notify(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}
