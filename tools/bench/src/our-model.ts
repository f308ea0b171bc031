/**
 * Our side of the comparisons: the example runtime with one model on the adapter of this machine.
 *
 * Everything but the KV capacity is the runtime's default, so that what is compared is what a user
 * gets. Each measurement uses a sequence of its own and frees it.
 */
import { createGpu } from '@vramkit/adapter';
import type { AdapterName } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import type { VramDevice } from '@vramkit/core';
import { full } from '@vramkit/eviction';
import {
  createSession,
  generate,
  loadModel,
  loadTokenizer,
  openModelFile,
  score,
} from '@vramkit/example-runtime';
import type { InferenceSession, Sequence, Tokenizer } from '@vramkit/example-runtime';

/** A loaded model with a session. */
export class OurModel {
  /** The adapter it runs on. */
  readonly adapter: AdapterName;
  /** The driver as it describes itself. */
  readonly driver: string;
  /** The device, for kernels beside the model. */
  readonly device: VramDevice;
  /** The model's tokenizer. */
  readonly tokenizer: Tokenizer;
  readonly #session: InferenceSession;

  /** Use {@link openOurModel}. */
  constructor(
    opened: { adapter: AdapterName; driver: string; device: VramDevice },
    tokenizer: Tokenizer,
    session: InferenceSession,
  ) {
    this.adapter = opened.adapter;
    this.driver = opened.driver;
    this.device = opened.device;
    this.tokenizer = tokenizer;
    this.#session = session;
  }

  /** `exp` of the mean loss of `tokens[1..]`, each given all before it. */
  async perplexity(
    tokens: readonly number[],
    onProgress: (done: number) => void = () => undefined,
  ): Promise<number> {
    return this.#with(async (sequence) => {
      const ids = Uint32Array.from(tokens);
      const losses = await score(this.#session, sequence, ids, { onProgress });
      return Math.exp(losses.reduce((sum, loss) => sum + loss, 0) / losses.length);
    });
  }

  /** At most `count` tokens, greedily, without the one that ends the text. */
  async continueGreedily(prompt: readonly number[], count: number): Promise<number[]> {
    return this.#with(async (sequence) => {
      await this.#session.prefill(sequence, Uint32Array.from(prompt));
      const tokens: number[] = [];
      for await (const token of generate(this.#session, sequence, { maxTokens: count })) {
        tokens.push(token);
      }
      return tokens;
    });
  }

  /** Whether a token ends the text. */
  isStop(token: number): boolean {
    return this.#session.model.config.stopIds.includes(token);
  }

  /** Logits after the last of `tokens`, [vocabulary]. */
  async logitsAfter(tokens: readonly number[]): Promise<Float32Array> {
    return this.#with(async (sequence) => {
      await this.#session.prefill(sequence, Uint32Array.from(tokens));
      return this.#session.takeLastLogits(sequence);
    });
  }

  /** Seconds from an empty sequence to the logits after the last of `tokens`. */
  async timePrefill(tokens: readonly number[]): Promise<number> {
    return this.#with(async (sequence) => {
      const ids = Uint32Array.from(tokens);
      const start = performance.now();
      await this.#session.prefill(sequence, ids);
      return (performance.now() - start) / 1000;
    });
  }

  /** Seconds of `count` greedy decode steps after the (untimed) prefill of `prompt`. */
  async timeDecode(prompt: readonly number[], count: number): Promise<number> {
    return this.#with(async (sequence) => {
      await this.#session.prefill(sequence, Uint32Array.from(prompt));
      // The first token comes from the prefill's logits, so it is not a decode step.
      const options = { maxTokens: count + 1, stopIds: [] };
      const tokens = generate(this.#session, sequence, options);
      await tokens.next();
      const start = performance.now();
      for (let step = 0; step < count; step += 1) await tokens.next();
      const seconds = (performance.now() - start) / 1000;
      await tokens.return();
      return seconds;
    });
  }

  /** Frees session, model and device. */
  dispose(): void {
    this.#session.dispose();
    this.#session.model.dispose();
    this.device.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  async #with<T>(use: (sequence: Sequence) => Promise<T>): Promise<T> {
    const { blockSize } = this.#session.sequences.pool;
    const sequence = this.#session.create(full({ blockSize }));
    try {
      return await use(sequence);
    } finally {
      this.#session.free(sequence);
    }
  }
}

/** Loads the model at `path` with room for `kvTokens` tokens. */
export async function openOurModel(path: string, kvTokens: number): Promise<OurModel> {
  const { gpu, adapter, driver } = await createGpu();
  const device = await openDevice({ gpu });
  try {
    const file = await openModelFile(path);
    try {
      const tokenizer = await loadTokenizer(file);
      const model = await loadModel(device, file);
      const session = createSession(device, model, { kvTokens });
      return new OurModel({ adapter, driver, device }, tokenizer, session);
    } finally {
      await file.close();
    }
  } catch (error) {
    device.dispose();
    throw error;
  }
}
