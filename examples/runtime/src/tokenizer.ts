/**
 * Text to tokens and back, whichever file the vocabulary is in.
 *
 * Encoding is npm `@huggingface/tokenizers`; decoding is by bytes (`token-bytes.ts`), so that
 * text can be shown while it is generated. A model without a tokenizer whose vocabulary is 256
 * has bytes for tokens.
 */
import { Tokenizer as BpeTokenizer } from '@huggingface/tokenizers';
import { assertInvariant, fail, VramError } from '@vramkit/core';
import {
  createChatTemplate,
  type ChatMessage,
  type ChatTemplate,
  type ChatTemplateOptions,
} from './chat-template.js';
import { encodeChat } from './chat-tokens.js';
import type { ModelFile } from './model-file.js';
import {
  createTokenDecoder,
  spelledBytes,
  type TokenDecoder,
  type TokenSpelling,
} from './token-bytes.js';
import { ggufVocabulary } from './tokenizer-gguf.js';
import { readTokenizerFolder } from './tokenizer-json.js';

/** Options of {@link Tokenizer.encode}. */
export interface EncodeOptions {
  /**
   * Adds what the model wants before and after a text, such as a beginning token. Default: true.
   */
  readonly addSpecial?: boolean;
  /**
   * Reads the names of special tokens in the text as those tokens, as a rendered chat template
   * needs. `false` for text of unknown origin, which must not end a turn. Default: true.
   */
  readonly parseSpecial?: boolean;
}

/** Options of {@link Tokenizer.decode} and {@link Tokenizer.createDecoder}. */
export interface DecodeOptions {
  /** Leaves out tokens that are not text. Default: true. */
  readonly skipSpecial?: boolean;
}

/** Text to token ids and back, for one model. */
export interface Tokenizer {
  /** Whether the model carries a chat template. */
  readonly hasChatTemplate: boolean;
  /** Token ids of `text`. */
  encode(text: string, options?: EncodeOptions): Uint32Array;
  /** Text of `ids`; the inverse of `encode` where every byte of the text is in the vocabulary. */
  decode(ids: Iterable<number>, options?: DecodeOptions): string;
  /** A decoder for tokens that arrive one by one. */
  createDecoder(options?: DecodeOptions): TokenDecoder;
  /**
   * A conversation as the text that the model was trained on; {@link Tokenizer.encodeChat} encodes
   * it without special tokens that are in the messages.
   * @throws VramError `unsupported` where there is no template, `invalid-argument` where it
   * refuses.
   */
  applyChatTemplate(messages: readonly ChatMessage[], options?: ChatTemplateOptions): string;
  /**
   * Token ids of a conversation. Special tokens are the template's; what is in messages is text.
   * @throws VramError as {@link Tokenizer.applyChatTemplate}.
   */
  encodeChat(messages: readonly ChatMessage[], options?: ChatTemplateOptions): Uint32Array;
}

/**
 * Loads the tokenizer of an open model.
 * @throws VramError `not-found` where it has none, `unsupported` for a kind that is not read
 * here, `corrupt-data` where its parts do not fit each other or the model.
 */
export async function loadTokenizer(file: ModelFile): Promise<Tokenizer> {
  const { tokenizer: source, path } = file;
  if (source.type === 'gguf') return ggufTokenizer(file, source.metadata);
  if (source.type === 'json') return folderTokenizer(file, source.folder);
  if (source.type === 'bytes') return byteTokenizer();
  return fail('not-found', `${path}: there is no tokenizer beside the model`, { file: path });
}

/** Tokens are bytes: 0 to 255, without special ones. */
export function byteTokenizer(): Tokenizer {
  return tokenizerOf({
    encode: (text) => [...new TextEncoder().encode(text)],
    bytesOf: (id) => Uint8Array.of(id),
    specialIds: new Set(),
    specialNames: [],
    addsSpace: false,
    template: undefined,
  });
}

function ggufTokenizer(
  file: ModelFile,
  metadata: Extract<ModelFile['tokenizer'], { type: 'gguf' }>['metadata'],
): Tokenizer {
  const { path, config } = file;
  const vocabulary = ggufVocabulary(path, metadata);
  const { tokens, prefix, suffix, verbatimIds, spelling } = vocabulary;
  checkSize(path, tokens.length, config.vocabularySize);
  const text = metadata.string('tokenizer.chat_template');
  const token = (id: number | undefined): string | undefined =>
    id === undefined ? undefined : tokens[id];
  const names = { bos: token(config.bosId), eos: token(config.eosId) };
  const library = libraries(path, vocabulary.tokenizerJson, {});
  return tokenizerOf({
    encode: (input, { addSpecial, parseSpecial }) => {
      const { ids } = library(parseSpecial).encode(input, { add_special_tokens: false });
      return addSpecial ? [...prefix, ...ids, ...suffix] : ids;
    },
    bytesOf: spelled(tokens, spelling, verbatimIds),
    specialIds: vocabulary.specialIds,
    specialNames: [...vocabulary.specialIds].map((id) => tokens[id] ?? ''),
    addsSpace: vocabulary.addsSpace,
    template: text === undefined ? undefined : createChatTemplate(path, text, names),
  });
}

async function folderTokenizer(file: ModelFile, folder: string): Promise<Tokenizer> {
  const found = await readTokenizerFolder(folder);
  const library = libraries(found.file, found.tokenizerJson, found.config.value);
  const tokens: string[] = [];
  for (const [token, id] of library(true).get_vocab()) tokens[id] = token;
  checkSize(found.file, tokens.length, file.config.vocabularySize);
  const special = found.added.filter((token) => token.special);
  const verbatimIds = new Set(found.added.map(({ id }) => id));
  // The configuration names a token by its text or by an object around it.
  const token = (key: string): string | undefined => {
    const value = found.config.value[key];
    return typeof value === 'string' ? value : found.config.fields(key)?.string('content');
  };
  const names = { bos: token('bos_token'), eos: token('eos_token') };
  const { chatTemplate } = found;
  return tokenizerOf({
    encode: (input, { addSpecial, parseSpecial }) =>
      library(parseSpecial).encode(input, { add_special_tokens: addSpecial }).ids,
    bytesOf: spelled(tokens, found.spelling, verbatimIds),
    specialIds: new Set(special.map(({ id }) => id)),
    specialNames: special.map(({ content }) => content),
    addsSpace: found.addsSpace,
    template:
      chatTemplate === undefined ? undefined : createChatTemplate(found.file, chatTemplate, names),
  });
}

function checkSize(file: string, tokens: number, vocabularySize: number): void {
  if (tokens <= vocabularySize) return;
  fail('corrupt-data', `${file}: ${tokens} tokens for a vocabulary of ${vocabularySize}`, {
    file,
    tokens,
    vocabularySize,
  });
}

/** The library's tokenizer with and without special tokens, each made when it is first needed. */
function libraries(
  file: string,
  tokenizerJson: (parseSpecial: boolean) => object,
  config: object,
): (parseSpecial: boolean) => BpeTokenizer {
  const made = new Map<boolean, BpeTokenizer>();
  return (parseSpecial) => {
    let library = made.get(parseSpecial);
    if (library === undefined) {
      try {
        library = new BpeTokenizer(tokenizerJson(parseSpecial), config);
      } catch (cause) {
        const reason = cause instanceof Error ? cause.message : String(cause);
        const message = `${file}: the tokenizer cannot be built: ${reason}`;
        throw new VramError('unsupported', message, { cause, context: { file } });
      }
      made.set(parseSpecial, library);
    }
    return library;
  };
}

function spelled(
  tokens: readonly (string | undefined)[],
  spelling: TokenSpelling,
  verbatimIds: ReadonlySet<number>,
): (id: number) => Uint8Array {
  const encoder = new TextEncoder();
  return (id) => {
    const token = tokens[id] ?? '';
    return verbatimIds.has(id) ? encoder.encode(token) : spelledBytes(token, spelling);
  };
}

interface TokenizerParts {
  readonly encode: (text: string, options: Required<EncodeOptions>) => readonly number[];
  readonly bytesOf: (id: number) => Uint8Array;
  readonly specialIds: ReadonlySet<number>;
  readonly specialNames: readonly string[];
  readonly addsSpace: boolean;
  readonly template: ChatTemplate | undefined;
}

function tokenizerOf(parts: TokenizerParts): Tokenizer {
  const { bytesOf, specialIds, template } = parts;
  const nothing = new Uint8Array(0);
  const createDecoder: Tokenizer['createDecoder'] = ({ skipSpecial = true } = {}) =>
    createTokenDecoder((id) => (skipSpecial && specialIds.has(id) ? nothing : bytesOf(id)));
  const specialNames = parts.specialNames.filter((name) => name !== '');
  const applyChatTemplate: Tokenizer['applyChatTemplate'] = (messages, options) => {
    if (template === undefined) return fail('unsupported', 'the model has no chat template');
    return template(messages, options);
  };
  const checked = (ids: readonly number[]): Uint32Array => {
    assertInvariant(ids.every(Number.isInteger), 'the tokenizer gave a token without an id');
    return Uint32Array.from(ids);
  };
  return {
    hasChatTemplate: template !== undefined,
    encode: (text, { addSpecial = true, parseSpecial = true } = {}) =>
      checked(parts.encode(text, { addSpecial, parseSpecial })),
    encodeChat: (messages, options) =>
      checked(
        encodeChat(messages, {
          specialNames,
          render: (hidden) => applyChatTemplate(hidden, options),
          encode: (text, { parseSpecial }) =>
            parts.encode(text, { addSpecial: false, parseSpecial }),
        }),
      ),
    decode: (ids, options) => {
      const decoder = createDecoder(options);
      let text = '';
      for (const id of ids) text += decoder.push(id);
      text += decoder.end();
      return parts.addsSpace && text.startsWith(' ') ? text.slice(1) : text;
    },
    createDecoder,
    applyChatTemplate,
  };
}
