/**
 * Bodies of the two completion routes: their JSON Schemas, and the request that they mean.
 *
 * Other fields pass the schemas; `unsupported-fields.ts` refuses those that would change the answer.
 */
import type { ChatMessage, Tokenizer } from '@vramkit/example-runtime';
import { HttpError } from './http-error.js';

/** Fields of both routes. */
export interface CommonBody {
  readonly model: string;
  readonly max_tokens?: number | null;
  readonly temperature?: number | null;
  readonly top_p?: number | null;
  readonly top_k?: number | null;
  readonly n?: number | null;
  readonly seed?: number | null;
  readonly stop?: string | readonly string[] | null;
  readonly stream?: boolean | null;
  readonly stream_options?: { readonly include_usage?: boolean } | null;
  /** Requests share cached prefixes with those of the same salt only. */
  readonly cache_salt?: string | null;
}

/** Body of `/v1/completions`. */
export interface CompletionBody extends CommonBody {
  readonly prompt: string | readonly string[] | readonly number[] | readonly (readonly number[])[];
}

/** Body of `/v1/chat/completions`. */
export interface ChatBody extends CommonBody {
  readonly messages: readonly {
    readonly role: ChatMessage['role'] | 'developer';
    readonly content: string | readonly { readonly type: 'text'; readonly text: string }[];
  }[];
  readonly max_completion_tokens?: number | null;
}

const MAX_CHOICES = 16;
const MAX_PROMPTS = 64;
const nullable = (type: string, rest: object = {}): object => ({ type: [type, 'null'], ...rest });
const text = { type: 'string' };
const id = { type: 'integer', minimum: 0 };
const nonEmpty = (items: object, maxItems?: number): object => ({
  type: 'array',
  items,
  minItems: 1,
  ...(maxItems === undefined ? {} : { maxItems }),
});

const COMMON = {
  model: text,
  max_tokens: nullable('integer', { minimum: 1 }),
  temperature: nullable('number', { minimum: 0, maximum: 2 }),
  top_p: nullable('number', { exclusiveMinimum: 0, maximum: 1 }),
  top_k: nullable('integer', { minimum: 0 }),
  n: nullable('integer', { minimum: 1, maximum: MAX_CHOICES }),
  seed: nullable('integer', { minimum: 0, maximum: 2 ** 32 - 1 }),
  stop: { anyOf: [{ type: ['string', 'null'] }, { type: 'array', items: text, maxItems: 4 }] },
  stream: nullable('boolean'),
  stream_options: nullable('object', { properties: { include_usage: { type: 'boolean' } } }),
  cache_salt: nullable('string', { maxLength: 256 }),
};

/** Schema of {@link CompletionBody}. */
export const COMPLETION_SCHEMA = {
  type: 'object',
  required: ['model', 'prompt'],
  properties: {
    ...COMMON,
    prompt: {
      anyOf: [text, nonEmpty(text, MAX_PROMPTS), nonEmpty(id), nonEmpty(nonEmpty(id), MAX_PROMPTS)],
    },
  },
};

/** Schema of {@link ChatBody}. */
export const CHAT_SCHEMA = {
  type: 'object',
  required: ['model', 'messages'],
  properties: {
    ...COMMON,
    max_completion_tokens: nullable('integer', { minimum: 1 }),
    messages: nonEmpty({
      type: 'object',
      required: ['role', 'content'],
      properties: {
        role: { enum: ['system', 'developer', 'user', 'assistant'] },
        content: {
          anyOf: [
            text,
            nonEmpty({
              type: 'object',
              required: ['type', 'text'],
              properties: { type: { const: 'text' }, text },
            }),
          ],
        },
      },
    }),
  },
};

/**
 * Token ids of each prompt of a completion.
 * @throws HttpError 400 for an id that is not in the vocabulary.
 */
export function completionPrompts(
  { prompt }: CompletionBody,
  tokenizer: Tokenizer,
  vocabularySize: number,
): Uint32Array[] {
  // Before there is a typed array, which would wrap an id modulo 2^32.
  const fromIds = (ids: readonly number[]): Uint32Array => {
    for (const each of ids) {
      if (each < vocabularySize) continue;
      const message = `token id ${each} is not in the vocabulary of ${vocabularySize}`;
      throw new HttpError(400, message, 'invalid_value', 'prompt');
    }
    return Uint32Array.from(ids);
  };
  if (typeof prompt === 'string') return [tokenizer.encode(prompt)];
  const isIds = prompt.every((each) => typeof each === 'number');
  if (isIds) return [fromIds(prompt)];
  return prompt.map((each) =>
    typeof each === 'string'
      ? tokenizer.encode(each)
      : fromIds(typeof each === 'number' ? [each] : each),
  );
}

/** Token ids of a conversation, up to the beginning of the assistant's turn. */
export function chatPrompt(body: ChatBody, tokenizer: Tokenizer): Uint32Array {
  if (!tokenizer.hasChatTemplate) {
    throw new HttpError(400, 'this model has no chat template; use /v1/completions');
  }
  const messages = body.messages.map(({ role, content }): ChatMessage => ({
    role: role === 'developer' ? 'system' : role,
    content: typeof content === 'string' ? content : content.map((part) => part.text).join(''),
  }));
  return tokenizer.encodeChat(messages);
}

/** The stop strings of a body. */
export function stopStrings({ stop }: CommonBody): readonly string[] {
  if (stop === undefined || stop === null) return [];
  return typeof stop === 'string' ? [stop] : stop;
}
