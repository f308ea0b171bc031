/**
 * What is said between this workspace and the process that runs llama.cpp.
 *
 * The process reads one JSON object per line from standard input, answers each with one line on
 * standard output, in order, and ends when its input ends. A separate process keeps the peer's
 * threads, Vulkan instance and crashes away from ours; durations are measured inside it, so no
 * message counts as work. `open` comes first and once.
 */

/** Which part of llama.cpp computes. */
export type LlamaBackend = 'cpu' | 'vulkan';

/** Opens a GGUF file with one context of one sequence. */
export interface LlamaOpen {
  /** Path of the GGUF file. */
  readonly model: string;
  /** Where to compute. `vulkan` puts every layer on the device. */
  readonly backend: LlamaBackend;
  /** Threads of the CPU backend. */
  readonly threads: number;
  /** Tokens the context holds; no request may need more. */
  readonly contextTokens: number;
  /**
   * `fast` is llama.cpp as it comes: an f16 cache, and flash attention where it is supported.
   * `exact` keeps keys and values in f32 and turns flash attention off, which rounds them to f16.
   */
  readonly attention: 'fast' | 'exact';
}

/** What was opened. */
export interface LlamaOpened {
  /** Version of node-llama-cpp and of the llama.cpp it carries. */
  readonly version: string;
  /** Names of the GPU devices in use; empty on the CPU. */
  readonly devices: readonly string[];
  /** llama.cpp's list of the CPU features it uses. */
  readonly system: string;
  /** Tokens the context really holds. */
  readonly contextTokens: number;
  /** Number of tokens in the vocabulary. */
  readonly vocabularySize: number;
}

/** One of the two most probable next tokens. */
export interface LlamaCandidate {
  /** Token id. */
  readonly token: number;
  /** Probability in [0, 1]. */
  readonly probability: number;
}

/** One step of a greedy continuation, the most probable token first. */
export type LlamaStep = readonly [best: LlamaCandidate, second: LlamaCandidate];

/** Log-probabilities of a text's tokens. */
export interface LlamaLikelihood {
  /** Natural logarithm of the probability of `tokens[i + 1]` after `tokens[0..i]`. */
  readonly logProbs: readonly number[];
  /** `exp` of the negative mean of `logProbs`. */
  readonly perplexity: number;
  /** Largest gap between the sum used here (f64) and llama.cpp's (f32), in nats. */
  readonly largestSumGap: number;
}

/** Every request by name, with what it carries and what it gives back. */
export interface LlamaCalls {
  /** Loads the model. */
  readonly open: { readonly request: LlamaOpen; readonly answer: LlamaOpened };
  /** Turns text into token ids, adding none; `special` reads `<|im_start|>` and the like as one. */
  readonly tokenize: {
    readonly request: { readonly text: string; readonly special: boolean };
    readonly answer: { readonly tokens: readonly number[] };
  };
  /** Scores each token of a text after the ones before it, from an empty context. */
  readonly likelihood: {
    readonly request: { readonly tokens: readonly number[] };
    readonly answer: LlamaLikelihood;
  };
  /** Continues a prompt greedily by at most `count` tokens, up to and with an end token. */
  readonly continue: {
    readonly request: { readonly prompt: readonly number[]; readonly count: number };
    readonly answer: { readonly tokens: readonly number[]; readonly steps: readonly LlamaStep[] };
  };
  /** Times the prefill of a prompt into an empty context, up to the choice of the next token. */
  readonly prefill: {
    readonly request: { readonly tokens: readonly number[] };
    readonly answer: { readonly seconds: number };
  };
  /** Times `count` greedy decode steps after the (untimed) prefill of `prompt`. */
  readonly decode: {
    readonly request: { readonly prompt: readonly number[]; readonly count: number };
    readonly answer: { readonly seconds: number };
  };
}

/** Name of a request. */
export type LlamaCall = keyof LlamaCalls;

/** One line to the process. */
export type LlamaRequest = {
  [Name in LlamaCall]: { readonly call: Name; readonly request: LlamaCalls[Name]['request'] };
}[LlamaCall];

/** One line from the process. */
export type LlamaReply = { readonly answer: unknown } | { readonly error: string };
