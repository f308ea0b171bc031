/**
 * Bodies of the two completion routes: their JSON Schemas, and the request that they mean.
 *
 * Other fields pass the schemas; `unsupported-fields.ts` refuses those that would change an
 * answer.
 */
import type { ChatMessage, Tokenizer } from '@vramkit/example-runtime';
import { HttpError } from './http-error.js';

/** Fields of both routes. */
export interface CommonBody {
  readonly model: string;
  /** With 0 the prompt is computed, and stays cached for those to come. */
  readonly max_tokens?: number | null;
  readonly temperature?: number | null;
  readonly top_p?: number | null;
  readonly top_k?: number | null;
  readonly n?: number | null;
  /** Any integer; taken modulo 2^32. */
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

/** One part of a message's content. */
export interface ContentPart {
  readonly type: string;
  readonly text?: string;
}

/** Body of `/v1/chat/completions`. */
export interface ChatBody extends CommonBody {
  readonly messages: readonly {
    readonly role: string;
    /** Absent where an assistant only called tools, which is refused. */
    readonly content?: string | readonly ContentPart[] | null;
    readonly tool_calls?: unknown;
    readonly function_call?: unknown;
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
  max_tokens: nullable('integer', { minimum: 0 }),
  temperature: nullable('number', { minimum: 0, maximum: 2 }),
  top_p: nullable('number', { exclusiveMinimum: 0, maximum: 1 }),
  top_k: nullable('integer', { minimum: 0 }),
  n: nullable('integer', { minimum: 1, maximum: MAX_CHOICES }),
  seed: nullable('integer'),
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
    max_completion_tokens: nullable('integer', { minimum: 0 }),
    messages: nonEmpty({
      type: 'object',
      required: ['role'],
      properties: {
        role: text,
        content: {
          anyOf: [
            { type: ['string', 'null'] },
            nonEmpty({ type: 'object', required: ['type'], properties: { type: text, text } }),
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

const ROLES: ReadonlyMap<string, ChatMessage['role']> = new Map([
  ['system', 'system'],
  ['developer', 'system'],
  ['user', 'user'],
  ['assistant', 'assistant'],
]);

/** A message as templates know it. @throws HttpError 400 for what is not supported or missing. */
function chatMessage(message: ChatBody['messages'][number], index: number): ChatMessage {
  const param = `messages[${index}]`;
  const refuse = (what: string, field: string): never => {
    const code = 'unsupported_value';
    throw new HttpError(400, `${what} is not supported by this server`, code, `${param}.${field}`);
  };
  const role = ROLES.get(message.role) ?? refuse(`the role '${message.role}'`, 'role');
  for (const field of ['tool_calls', 'function_call'] as const) {
    const value = message[field] ?? [];
    if (!Array.isArray(value) || value.length > 0) refuse(`'${field}' in a message`, field);
  }
  const { content = null } = message;
  if (content === null && role !== 'assistant') {
    const code = 'missing_required_parameter';
    throw new HttpError(400, `'${param}.content' is missing`, code, `${param}.content`);
  }
  if (content === null || typeof content === 'string') return { role, content: content ?? '' };
  const texts = content.map(({ type, text: own }, part) =>
    type === 'text' && own !== undefined
      ? own
      : refuse(`content of type '${type}'`, `content[${part}]`),
  );
  return { role, content: texts.join('') };
}

/**
 * Token ids of a conversation, up to the beginning of the assistant's turn.
 * @throws HttpError 400 for messages that are not supported.
 */
export function chatPrompt(body: ChatBody, tokenizer: Tokenizer): Uint32Array {
  if (!tokenizer.hasChatTemplate) {
    throw new HttpError(400, 'this model has no chat template; use /v1/completions');
  }
  return tokenizer.encodeChat(body.messages.map(chatMessage));
}

/** The stop strings of a body. */
export function stopStrings({ stop }: CommonBody): readonly string[] {
  if (stop === undefined || stop === null) return [];
  return typeof stop === 'string' ? [stop] : stop;
}
