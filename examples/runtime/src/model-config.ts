/**
 * What a Llama or Mixtral model is, apart from its weights: plain numbers, the same whichever
 * file format they were read from.
 *
 * The numbers come from files, so `checkConfig` bounds each and ties those that depend on each
 * other.
 */
import { VramError } from '@vramkit/core';

/** How frequencies of the rotary embedding are changed for long contexts. */
export type RopeScaling =
  | { readonly type: 'none' }
  /** All frequencies divided by `factor`. */
  | { readonly type: 'linear'; readonly factor: number }
  /** Llama 3.1: long wavelengths divided, short ones kept, a blend between. */
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      /** Context of the original training, tokens. */
      readonly originalContext: number;
    }
  /** Each frequency divided by its own number, [headDim / 2]; GGUF stores `llama3` this way. */
  | { readonly type: 'factors'; readonly factors: readonly number[] };

/**
 * Which elements of a head rotate together: `half` pairs element i with i + headDim / 2 (Hugging
 * Face), `interleaved` pairs 2 i with 2 i + 1. GGUF files of the llama architecture hold query
 * and key rows permuted for `interleaved`.
 */
export type RopeStyle = 'interleaved' | 'half';

/** Shape and constants of a model. */
export interface ModelConfig {
  /** `mixtral` has experts in place of one feed-forward block. */
  readonly architecture: 'llama' | 'mixtral';
  readonly hiddenSize: number;
  /** Number of layers. */
  readonly layers: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads; divides `heads`. */
  readonly kvHeads: number;
  /** Elements of one head; even. */
  readonly headDim: number;
  /** Width of the feed-forward block, or of one expert. */
  readonly intermediateSize: number;
  readonly vocabularySize: number;
  /** Longest context, tokens. */
  readonly contextLength: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  readonly ropeStyle: RopeStyle;
  readonly rmsNormEpsilon: number;
  /** Whether the output head is the embedding. */
  readonly tiedEmbeddings: boolean;
  /** Experts of a layer; 0 for a dense model. */
  readonly experts: number;
  /** Experts that compute one token; 0 for a dense model. */
  readonly expertsPerToken: number;
  /** Token that begins a text, where the model has one. */
  readonly bosId: number | undefined;
  /** Token that ends a text, where the model has one. */
  readonly eosId: number | undefined;
  /** Tokens that end a generation: `eosId`, ends of turns and of messages. */
  readonly stopIds: readonly number[];
}

/**
 * Largest accepted value of each size. Far above any model, low enough that products stay exact.
 */
const LIMITS = {
  hiddenSize: 1 << 20,
  layers: 4096,
  heads: 1 << 16,
  kvHeads: 1 << 16,
  headDim: 1 << 12,
  intermediateSize: 1 << 22,
  vocabularySize: 1 << 24,
  contextLength: 2 ** 40,
} as const;

/**
 * Checks that the numbers of `config` can be those of a model, and returns it.
 * @throws VramError `corrupt-data` naming `file`, the field and its value.
 */
export function checkConfig(file: string, config: ModelConfig): ModelConfig {
  const refuse = (field: string, value: unknown, rule: string): never => {
    const message = `${file}: ${field} is ${String(value)}; it must be ${rule}`;
    throw new VramError('corrupt-data', message, {
      context: { file, field, value: String(value) },
    });
  };
  for (const [field, limit] of Object.entries(LIMITS)) {
    const value = config[field as keyof typeof LIMITS];
    if (!Number.isSafeInteger(value) || value < 1 || value > limit) {
      refuse(field, value, `an integer in [1, ${limit}]`);
    }
  }
  const { heads, kvHeads, headDim, experts, expertsPerToken, vocabularySize } = config;
  if (heads % kvHeads !== 0) refuse('heads', heads, `a multiple of kvHeads ${kvHeads}`);
  if (headDim % 2 !== 0) refuse('headDim', headDim, 'even');
  const dense = config.architecture === 'llama';
  if (dense && (experts !== 0 || expertsPerToken !== 0)) refuse('experts', experts, '0 for llama');
  if (!dense && !(experts >= 1 && experts <= 4096)) refuse('experts', experts, 'in [1, 4096]');
  if (!dense && !(expertsPerToken >= 1 && expertsPerToken <= experts)) {
    refuse('expertsPerToken', expertsPerToken, `in [1, ${experts}]`);
  }
  for (const field of ['ropeTheta', 'rmsNormEpsilon'] as const) {
    const value = config[field];
    if (!Number.isFinite(value) || value <= 0) refuse(field, value, 'finite and above 0');
  }
  checkScaling(config, refuse);
  const ids = [config.bosId, config.eosId, ...config.stopIds].filter((id) => id !== undefined);
  for (const id of ids) {
    if (!Number.isInteger(id) || id < 0 || id >= vocabularySize) {
      refuse('token id', id, `in [0, ${vocabularySize})`);
    }
  }
  return config;
}

function checkScaling(
  config: ModelConfig,
  refuse: (field: string, value: unknown, rule: string) => never,
): void {
  const scaling = config.ropeScaling;
  if (scaling.type === 'none') return;
  const numbers =
    scaling.type === 'factors'
      ? scaling.factors
      : Object.values(scaling).filter((value) => typeof value === 'number');
  for (const value of numbers) {
    if (!Number.isFinite(value) || value <= 0) refuse('ropeScaling', value, 'finite and above 0');
  }
  if (scaling.type === 'factors' && numbers.length !== config.headDim / 2) {
    refuse('ropeScaling.factors', numbers.length, `${config.headDim / 2} numbers`);
  }
  if (scaling.type === 'llama3' && scaling.highFreqFactor <= scaling.lowFreqFactor) {
    refuse('ropeScaling.highFreqFactor', scaling.highFreqFactor, 'above lowFreqFactor');
  }
}
