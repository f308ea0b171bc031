/**
 * The vocabulary of a GGUF file as the `tokenizer.json` that npm `@huggingface/tokenizers` reads.
 *
 * Two kinds are common. `gpt2` is byte-level BPE with a list of merges; `tokenizer.ggml.pre`
 * names how text is cut before merging. `llama` is SentencePiece BPE: it has scores in place of
 * merges, and joining the pair with the best score is the same as applying merges in order of
 * score.
 *
 * White space is \p{White_Space} here, as in the tokenizers the vocabularies were made with; the
 * `\s` of JavaScript differs from it in U+0085 and U+FEFF.
 */
import { VramError } from '@vramkit/core';
import type { GgufMetadata } from '@vramkit/packer';
import type { TokenSpelling } from './token-bytes.js';

/** Kinds of token in `tokenizer.ggml.token_type`. */
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;

/** What {@link ggufVocabulary} gives. */
export interface Vocabulary {
  readonly tokens: readonly string[];
  readonly spelling: TokenSpelling;
  /** Tokens that are not text: control and unknown. */
  readonly specialIds: ReadonlySet<number>;
  /** Tokens that are written as they are, special ones and such as were added by the user. */
  readonly verbatimIds: ReadonlySet<number>;
  /** Tokens to put before and after a text. */
  readonly prefix: readonly number[];
  readonly suffix: readonly number[];
  /** Whether a space is put before the first word. */
  readonly addsSpace: boolean;
  /**
   * The object that the library is made of; `special` tokens are found in text where asked for.
   */
  readonly tokenizerJson: (parseSpecial: boolean) => object;
}

const W = String.raw`\p{White_Space}`;
const spaces = String.raw`${W}+(?!\P{White_Space})|${W}+`;
const others = String.raw` ?[^${W}\p{L}\p{N}]+`;
const GPT2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+|${others}|${spaces}`;
const contractions = String.raw`'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]`;
const words = String.raw`[^\r\n\p{L}\p{N}]?\p{L}+`;
const rest = String.raw`${others}[\r\n]*|${W}*[\r\n]+|${spaces}`;
const LLAMA3 = String.raw`${contractions}|${words}|\p{N}{1,3}|${rest}`;
const QWEN2 = String.raw`${contractions}|${words}|\p{N}|${rest}`;

/** Expressions that cut text, applied one after the other, by `tokenizer.ggml.pre`. */
const CUTS: Readonly<Record<string, readonly string[]>> = {
  'gpt-2': [GPT2],
  smollm: [String.raw`\p{N}`, GPT2],
  starcoder: [String.raw`\p{N}`, GPT2],
  'llama-bpe': [LLAMA3],
  'llama-v3': [LLAMA3],
  llama3: [LLAMA3],
  qwen2: [QWEN2],
};
const LLAMA3_NAMES = new Set(['llama-bpe', 'llama-v3', 'llama3']);

/**
 * Reads the vocabulary of the GGUF file `file`.
 * @throws VramError `not-found` where it has none, `unsupported` for another model or cut,
 * `corrupt-data` where its lists do not fit each other.
 */
export function ggufVocabulary(file: string, metadata: GgufMetadata): Vocabulary {
  const model = metadata.string('tokenizer.ggml.model');
  const tokens = metadata.strings('tokenizer.ggml.tokens');
  if (model === undefined || tokens === undefined) {
    throw new VramError('not-found', `${file}: it has no vocabulary`, { context: { file } });
  }
  const types = metadata.numbers('tokenizer.ggml.token_type') ?? tokens.map(() => NORMAL);
  sameLength(file, 'token_type', types.length, tokens.length);
  const idsOf = (...kinds: number[]): Set<number> =>
    new Set([...tokens.keys()].filter((id) => kinds.includes(types[id] ?? NORMAL)));
  const verbatimIds = idsOf(UNKNOWN, CONTROL, USER_DEFINED);
  const userDefined = idsOf(USER_DEFINED);
  const addedTokens = (parseSpecial: boolean): object[] =>
    [...(parseSpecial ? verbatimIds : userDefined)].map((id) => ({
      id,
      content: tokens[id] ?? '',
      special: !userDefined.has(id),
      normalized: false,
    }));
  const common = { tokens, specialIds: idsOf(UNKNOWN, CONTROL), verbatimIds };
  if (model === 'gpt2') {
    const parts = byteLevelParts(file, metadata, tokens);
    return {
      ...common,
      ...affixes(file, metadata, { addsBos: parts.addsBos, count: tokens.length }),
      spelling: 'byte-level',
      addsSpace: false,
      tokenizerJson: (parseSpecial) => ({
        ...parts.json,
        added_tokens: addedTokens(parseSpecial),
      }),
    };
  }
  if (model === 'llama') {
    const addsSpace = metadata.boolean('tokenizer.ggml.add_space_prefix') ?? true;
    const json = sentencePieceJson(file, metadata, { tokens, types, addsSpace });
    return {
      ...common,
      ...affixes(file, metadata, { addsBos: true, count: tokens.length }),
      spelling: 'sentencepiece',
      addsSpace,
      tokenizerJson: (parseSpecial) => ({ ...json, added_tokens: addedTokens(parseSpecial) }),
    };
  }
  throw new VramError('unsupported', `${file}: tokenizer model '${model}'`, {
    context: { file, model },
  });
}

function sameLength(file: string, list: string, length: number, expected: number): void {
  if (length === expected) return;
  const message = `${file}: tokenizer.ggml.${list} has ${length} entries for ${expected} tokens`;
  throw new VramError('corrupt-data', message, { context: { file, list, length, expected } });
}

function affixes(
  file: string,
  metadata: GgufMetadata,
  defaults: { addsBos: boolean; count: number },
): Pick<Vocabulary, 'prefix' | 'suffix'> {
  const affix = (name: 'bos' | 'eos', byDefault: boolean): number[] => {
    if (!(metadata.boolean(`tokenizer.ggml.add_${name}_token`) ?? byDefault)) return [];
    const id = metadata.integer(`tokenizer.ggml.${name}_token_id`);
    if (id === undefined) return [];
    if (id < defaults.count) return [id];
    throw new VramError('corrupt-data', `${file}: ${name} token ${id} of ${defaults.count}`, {
      context: { file, id, count: defaults.count },
    });
  };
  return { prefix: affix('bos', defaults.addsBos), suffix: affix('eos', false) };
}

/** Ids by token; `Object.fromEntries` also takes a token named `__proto__` for what it is. */
function idsByToken(tokens: readonly string[]): Record<string, number> {
  return Object.fromEntries(tokens.map((token, id) => [token, id]));
}

function byteLevelParts(
  file: string,
  metadata: GgufMetadata,
  tokens: readonly string[],
): { json: object; addsBos: boolean } {
  const cut = metadata.string('tokenizer.ggml.pre') ?? 'default';
  const expressions = Object.hasOwn(CUTS, cut) ? CUTS[cut] : undefined;
  if (expressions === undefined) {
    throw new VramError('unsupported', `${file}: tokenizer.ggml.pre '${cut}'`, {
      context: { file, pre: cut, known: Object.keys(CUTS) },
    });
  }
  const merges = metadata.strings('tokenizer.ggml.merges') ?? [];
  const split = expressions.map((expression) => ({
    type: 'Split',
    pattern: { Regex: expression },
    behavior: 'Isolated',
    invert: false,
  }));
  const bytes = { type: 'ByteLevel', add_prefix_space: false, use_regex: false };
  const json = {
    normalizer: null,
    pre_tokenizer: { type: 'Sequence', pretokenizers: [...split, bytes] },
    post_processor: null,
    decoder: { type: 'ByteLevel' },
    model: {
      type: 'BPE',
      vocab: idsByToken(tokens),
      merges: merges.map((merge) => {
        // A token may itself be a space, so the separator is the first one after the start.
        const at = merge.indexOf(' ', 1);
        return [merge.slice(0, at), merge.slice(at + 1)];
      }),
      ignore_merges: LLAMA3_NAMES.has(cut),
    },
  };
  return { json, addsBos: LLAMA3_NAMES.has(cut) };
}

function sentencePieceJson(
  file: string,
  metadata: GgufMetadata,
  vocabulary: { tokens: readonly string[]; types: ArrayLike<number>; addsSpace: boolean },
): object {
  const { tokens, types, addsSpace } = vocabulary;
  const scores = metadata.numbers('tokenizer.ggml.scores');
  sameLength(file, 'scores', scores?.length ?? 0, tokens.length);
  const replace = { type: 'Replace', pattern: { String: ' ' }, content: '\u2581' };
  const prepend = { type: 'Prepend', prepend: '\u2581' };
  const unknown = tokens.find((_, id) => types[id] === UNKNOWN) ?? null;
  return {
    normalizer: addsSpace ? { type: 'Sequence', normalizers: [prepend, replace] } : replace,
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: 'Sequence', decoders: [{ type: 'ByteFallback' }, { type: 'Fuse' }] },
    model: {
      type: 'BPE',
      vocab: idsByToken(tokens),
      merges: mergesByScore(tokens, types, scores ?? []),
      byte_fallback: true,
      fuse_unk: true,
      ...(unknown === null ? {} : { unk_token: unknown }),
    },
  };
}

/** Every way to join two tokens into a third, best score of the result first. */
function mergesByScore(
  tokens: readonly string[],
  types: ArrayLike<number>,
  scores: ArrayLike<number>,
): [string, string][] {
  const ids = new Map(tokens.map((token, id) => [token, id]));
  const merges: { pair: [string, string]; score: number; left: number; right: number }[] = [];
  tokens.forEach((token, id) => {
    if (types[id] !== NORMAL) return;
    for (let at = 1; at < token.length; at++) {
      const pair: [string, string] = [token.slice(0, at), token.slice(at)];
      const left = ids.get(pair[0]);
      const right = ids.get(pair[1]);
      if (left === undefined || right === undefined) continue;
      merges.push({ pair, score: scores[id] ?? 0, left, right });
    }
  });
  merges.sort((a, b) => b.score - a.score || a.left - b.left || a.right - b.right);
  return merges.map(({ pair }) => pair);
}
