/**
 * Serving from nothing but a store: the packed model with some of its experts on the device, many
 * requests over paged K/V whose prefixes outlive the process, then a long text whose K/V
 * PagedEviction keeps within a budget.
 *
 * The engine shares blocks between requests, so it drops none of their tokens; what is dropped is
 * a sequence's own, in a session beside it, over the same weights.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { VramDevice } from '@vramkit/core';
import { full, kvPolicy, lru } from '@vramkit/eviction';
import {
  createBatchEngine,
  createSession,
  expertStats,
  generate,
  loadModel,
  openKvStore,
  openModelFile,
  score,
  type BatchEngine,
  type InferenceSession,
  type LanguageModel,
  type ModelFile,
  type Sequence,
} from '@vramkit/example-runtime';
import { readBlob, type BlobStore } from '@vramkit/storage';

const BLOCK_SIZE = 16;
/** Files of the packed model in the store and in a folder. */
export const MODEL_FILES = ['model.safetensors', 'config.json'] as const;
/** Where they are in the store. */
export const PACKED = 'packed/';
/** Most bytes of prefixes in the store. */
const PREFIX_BYTES = 64 * 2 ** 20;

/** What is asked; plain data. */
export interface ServeRequest {
  /** Bytes on the device for experts of all layers. */
  readonly expertBytes: number;
  /** Token ids of prompts that are asked one after the other; they have nothing in common. */
  readonly alone: readonly (readonly number[])[];
  /** Prompts that are asked at once; they begin as the first of those before. */
  readonly together: readonly (readonly number[])[];
  /** A prompt that shares nothing with them, to compile kernels with. */
  readonly warmUp: readonly number[];
  readonly maxTokens: number;
  /** A text for PagedEviction, and what follows it. */
  readonly longText: readonly number[];
  readonly heldOut: readonly number[];
  /** Tokens of it that PagedEviction keeps. */
  readonly kvBudgetTokens: number;
}

/** One policy over the long text. */
export interface PolicyFigures {
  readonly policy: string;
  readonly heldTokens: number;
  readonly kvBytes: number;
  /** Mean loss of what follows, nats a byte. */
  readonly loss: number;
  readonly tokensPerSecond: number;
  readonly answer: readonly number[];
}

/** What serving gave; plain data. */
export interface ServeFigures {
  /** Of the prompts that were asked one after the other. */
  readonly promptTokens: number;
  /** Of these, those that came out of the store. */
  readonly restoredTokens: number;
  readonly storedBlocks: number;
  /** From the submission of each of them to its first token. */
  readonly firstTokenMs: readonly number[];
  /** Of the prompts that were asked at once, behind their first tokens. */
  readonly tokensPerSecond: number;
  readonly answers: readonly (readonly number[])[];
  readonly policies: readonly PolicyFigures[];
  readonly experts: NonNullable<ReturnType<typeof expertStats>> & { readonly budgetBytes: number };
}

/** Copies the packed model into a folder. */
async function fetchModel(store: BlobStore, folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const name of MODEL_FILES) {
    await writeFile(join(folder, name), await readBlob(store, PACKED + name));
  }
}

/** The packed model of a store, loaded and with its kernels compiled; the caller disposes it. */
export async function openServing(
  device: VramDevice,
  store: BlobStore,
  folder: string,
  request: ServeRequest,
): Promise<Serving> {
  await fetchModel(store, folder);
  const file = await openModelFile(folder);
  let model: LanguageModel | undefined;
  try {
    const experts = {
      budgetBytes: request.expertBytes,
      policy: () => lru<number>(),
      prefetch: true,
    };
    model = await loadModel(device, file, { experts });
    const serving = new Serving(device, { store, file, model, request });
    await serving.warmUp();
    return serving;
  } catch (error) {
    model?.dispose();
    await file.close();
    throw error;
  }
}

/** See {@link openServing}. */
export class Serving {
  readonly #device: VramDevice;
  readonly #store: BlobStore;
  readonly #file: ModelFile;
  readonly #model: LanguageModel;
  readonly #request: ServeRequest;

  /** Use {@link openServing}. */
  constructor(
    device: VramDevice,
    parts: {
      readonly store: BlobStore;
      readonly file: ModelFile;
      readonly model: LanguageModel;
      readonly request: ServeRequest;
    },
  ) {
    this.#device = device;
    this.#store = parts.store;
    this.#file = parts.file;
    this.#model = parts.model;
    this.#request = parts.request;
  }

  /** Answers a prompt, so that later ones compile nothing. */
  async warmUp(): Promise<void> {
    const { warmUp } = this.#request;
    const engine = createBatchEngine(this.#device, this.#model, { kvTokens: this.#kvTokens });
    await collect(engine, warmUp, 3).finally(() => engine.dispose());
  }

  /** Answers everything. */
  async run(): Promise<ServeFigures> {
    const answered = await this.#answers();
    const policies = await this.#policies();
    const stats = expertStats(this.#model);
    if (stats === undefined) throw new Error('the experts are cached');
    const experts = { ...stats, budgetBytes: this.#request.expertBytes };
    return { ...answered, policies, experts };
  }

  /** Some prompts one after the other, then others at once. */
  async #answers(): Promise<Omit<ServeFigures, 'policies' | 'experts'>> {
    const { alone, together, maxTokens } = this.#request;
    const kvStore = await openKvStore(this.#store, this.#file, {
      blockSize: BLOCK_SIZE,
      budgetBytes: PREFIX_BYTES,
    });
    const sizes = { kvTokens: this.#kvTokens, blockSize: BLOCK_SIZE, kvStore };
    const engine = createBatchEngine(this.#device, this.#model, sizes);
    const answered = [];
    let restoredTokens: number;
    let rest;
    try {
      for (const prompt of alone) answered.push(await collect(engine, prompt, maxTokens));
      ({ restoredTokens } = engine.metrics());
      rest = await Promise.all(together.map((prompt) => collect(engine, prompt, maxTokens)));
    } finally {
      await engine.dispose(); // what is being stored is stored then
    }
    const begin = Math.min(...rest.map(({ firstMs }) => firstMs));
    const end = Math.max(...rest.map(({ lastMs }) => lastMs));
    const tokens = rest.reduce((sum, { ids }) => sum + ids.length - 1, 0);
    return {
      promptTokens: alone.reduce((sum, { length }) => sum + length, 0),
      restoredTokens,
      storedBlocks: engine.metrics().storedBlocks,
      firstTokenMs: answered.map(({ submittedMs, firstMs }) => firstMs - submittedMs),
      tokensPerSecond: (1e3 * tokens) / (end - begin),
      answers: [...answered, ...rest].map(({ ids }) => ids),
    };
  }

  get #kvTokens(): number {
    const { alone, together, maxTokens } = this.#request;
    const longest = Math.max(...alone.map(({ length }) => length));
    return longest + together.length * (maxTokens + 4 * BLOCK_SIZE);
  }

  /** The long text with all its K and V, and with what PagedEviction keeps. */
  async #policies(): Promise<PolicyFigures[]> {
    const { longText, heldOut, maxTokens, kvBudgetTokens: budgetTokens } = this.#request;
    const policies = [
      full({ blockSize: BLOCK_SIZE }),
      kvPolicy('pagedEviction', { blockSize: BLOCK_SIZE, budgetTokens }),
    ];
    const kvTokens = longText.length + budgetTokens + maxTokens + heldOut.length + 4 * BLOCK_SIZE;
    using session = createSession(this.#device, this.#model, { kvTokens, blockSize: BLOCK_SIZE });
    const trunk = session.create(full({ blockSize: BLOCK_SIZE }), policies);
    // The last token is scored with what follows: its logits predict the first of that.
    await session.prefill(trunk, Uint32Array.from(longText.slice(0, -1)));
    const last = Uint32Array.from(longText.slice(-1));
    const losses: number[] = [];
    for (const policy of policies) {
      const fork = await session.fork(trunk, policy);
      const each = await score(session, fork, Uint32Array.of(...last, ...heldOut));
      losses.push(each.reduce((sum, loss) => sum + loss, 0) / each.length);
      session.free(fork);
    }
    await session.prefill(trunk, last);
    const figures: PolicyFigures[] = [];
    for (const [index, policy] of policies.entries()) {
      const fork = await session.fork(trunk, policy);
      const loss = losses[index] ?? NaN;
      figures.push({ ...(await answer(session, fork, maxTokens)), policy: policy.name, loss });
      session.free(fork);
    }
    session.free(trunk);
    return figures;
  }

  /** Frees the model and closes its file. */
  async dispose(): Promise<void> {
    this.#model.dispose();
    await this.#file.close();
  }
}

/** A greedy answer, and what the sequence holds behind it. */
async function answer(
  session: InferenceSession,
  sequence: Sequence,
  maxTokens: number,
): Promise<Omit<PolicyFigures, 'policy' | 'loss'>> {
  const ids: number[] = [];
  let start = 0;
  for await (const id of generate(session, sequence, { maxTokens })) {
    if (ids.length === 0) start = performance.now();
    ids.push(id);
  }
  const seconds = (performance.now() - start) / 1e3;
  return {
    heldTokens: session.sequences.table(sequence.id).cachedTokenCount,
    kvBytes: session.kvBytes(sequence),
    tokensPerSecond: (ids.length - 1) / seconds,
    answer: ids,
  };
}

async function collect(engine: BatchEngine, prompt: readonly number[], maxTokens: number) {
  const submittedMs = performance.now();
  const ids: number[] = [];
  let firstMs = 0;
  for await (const id of engine.submit(Uint32Array.from(prompt), { maxTokens })) {
    if (ids.length === 0) firstMs = performance.now();
    ids.push(id);
  }
  return { ids, submittedMs, firstMs, lastMs: performance.now() };
}
