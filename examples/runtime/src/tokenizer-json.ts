/**
 * The vocabulary in `tokenizer.json` of a folder, as the Hugging Face hub lays it out.
 *
 * npm `@huggingface/tokenizers` reads the file itself; what is added here is the spelling of
 * tokens as bytes, for decoding while tokens arrive, and the chat template, which lies in
 * `tokenizer_config.json` or in `chat_template.jinja`.
 */
import { isVramError, VramError } from '@vramkit/core';
import { fileSource } from '@vramkit/packer';
import { join } from 'node:path';
import { JsonFields, readJsonFile } from './json-fields.js';
import type { TokenSpelling } from './token-bytes.js';

const MAX_TOKENIZER_BYTES = 1 << 27;
const MAX_CONFIG_BYTES = 1 << 24;

/** What {@link readTokenizerFolder} gives. */
export interface TokenizerFolder {
  /** Path of `tokenizer.json`. */
  readonly file: string;
  /** The object of `tokenizer.json`. */
  readonly tokenizerJson: (parseSpecial: boolean) => object;
  /** The object of `tokenizer_config.json`, empty where there is none. */
  readonly config: JsonFields;
  readonly spelling: TokenSpelling;
  /** Tokens beside the vocabulary, written as they are; special ones are not text. */
  readonly added: readonly {
    readonly id: number;
    readonly content: string;
    readonly special: boolean;
  }[];
  /** Whether a space is put before the first word. */
  readonly addsSpace: boolean;
  readonly chatTemplate: string | undefined;
}

/**
 * Reads the tokenizer files of `folder`.
 * @throws VramError `corrupt-data` for malformed files, `unsupported` for a decoder that is
 * neither byte-level nor SentencePiece.
 */
export async function readTokenizerFolder(folder: string): Promise<TokenizerFolder> {
  const file = join(folder, 'tokenizer.json');
  const json = await readJsonFile(file, MAX_TOKENIZER_BYTES);
  const configPath = join(folder, 'tokenizer_config.json');
  const config =
    (await optional(() => readJsonFile(configPath, MAX_CONFIG_BYTES))) ??
    new JsonFields(configPath, {});
  const added = readAdded(file, json);
  const kinds = kindsIn(json.value['decoder']);
  const isByteLevel = kinds.has('ByteLevel');
  if (!isByteLevel && !kinds.has('ByteFallback')) {
    throw new VramError('unsupported', `${file}: decoder of ${[...kinds].join(', ')}`, {
      context: { file, decoders: [...kinds] },
    });
  }
  return {
    file,
    config,
    added,
    spelling: isByteLevel ? 'byte-level' : 'sentencepiece',
    addsSpace: !isByteLevel && kinds.has('Strip'),
    chatTemplate: await readTemplate(folder, config),
    tokenizerJson: (parseSpecial) => ({
      // The library needs every section to be there, if only as null.
      normalizer: null,
      pre_tokenizer: null,
      post_processor: null,
      decoder: null,
      ...json.value,
      ...(parseSpecial ? {} : hideSpecial(json, added)),
      ...(json.value['added_tokens'] === undefined ? { added_tokens: [] } : {}),
    }),
  };
}

/**
 * Sections that keep special tokens from being found in text: they are no longer added tokens,
 * and stay in the vocabulary, so that the post-processor can still put them around the text.
 */
function hideSpecial(json: JsonFields, added: TokenizerFolder['added']): object {
  const model = json.fields('model');
  const vocabulary = model?.fields('vocab')?.value ?? {};
  const special = added.filter((token) => token.special).map(({ content, id }) => [content, id]);
  return {
    added_tokens: added.filter((token) => !token.special),
    model: { ...model?.value, vocab: { ...vocabulary, ...Object.fromEntries(special) } },
  };
}

async function optional<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (isVramError(error, 'not-found')) return undefined;
    throw error;
  }
}

function readAdded(file: string, json: JsonFields): TokenizerFolder['added'] {
  const list = json.value['added_tokens'] ?? [];
  if (!Array.isArray(list)) {
    throw new VramError('corrupt-data', `${file}: 'added_tokens' must be an array`, {
      context: { file },
    });
  }
  return list.map((entry: Readonly<Record<string, unknown>>) => {
    const token = new JsonFields(file, entry);
    return {
      ...entry,
      id: token.requiredNumber('id'),
      content: token.string('content') ?? '',
      special: token.boolean('special') ?? false,
    };
  });
}

/** The `type` of a decoder and of all decoders in it. */
function kindsIn(decoder: unknown): Set<string> {
  const kinds = new Set<string>();
  if (typeof decoder !== 'object' || decoder === null) return kinds;
  if ('type' in decoder && typeof decoder.type === 'string') kinds.add(decoder.type);
  if ('decoders' in decoder && Array.isArray(decoder.decoders)) {
    for (const each of decoder.decoders) for (const kind of kindsIn(each)) kinds.add(kind);
  }
  return kinds;
}

async function readTemplate(folder: string, config: JsonFields): Promise<string | undefined> {
  const value = config.value['chat_template'];
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) {
    const named = value.find((each: { name?: unknown }) => each.name === 'default');
    if (typeof named?.template === 'string') return named.template;
  }
  return optional(async () => {
    const source = await fileSource(join(folder, 'chat_template.jinja'));
    try {
      const length = Math.min(source.sizeBytes, MAX_CONFIG_BYTES);
      return new TextDecoder().decode(await source.read(0, length));
    } finally {
      await source.close();
    }
  });
}
