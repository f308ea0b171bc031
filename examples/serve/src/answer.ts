/**
 * Answers of the two completion routes, whole or as server-sent events.
 *
 * Both routes differ in the shape of a choice only; {@link AnswerShape} has that difference.
 */
import { errorAnswer } from './http-error.js';
import type { ChoiceEnd, ChoiceStream } from './choice-stream.js';

/** How a route spells its answers. */
export interface AnswerShape {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunkObject: string;
  /** A whole choice. */
  readonly choice: (text: string) => object;
  /** The piece of a choice that one event carries; the first one of a choice is marked. */
  readonly piece: (text: string, isFirst: boolean) => object;
}

/** `/v1/completions`. */
export const TEXT_SHAPE: AnswerShape = {
  idPrefix: 'cmpl',
  object: 'text_completion',
  chunkObject: 'text_completion',
  choice: (text) => ({ text, logprobs: null }),
  piece: (text) => ({ text, logprobs: null }),
};

/** `/v1/chat/completions`. */
export const CHAT_SHAPE: AnswerShape = {
  idPrefix: 'chatcmpl',
  object: 'chat.completion',
  chunkObject: 'chat.completion.chunk',
  choice: (content) => ({ message: { role: 'assistant', content, refusal: null }, logprobs: null }),
  piece: (content, isFirst) => ({
    delta: isFirst ? { role: 'assistant', content } : content === '' ? {} : { content },
    logprobs: null,
  }),
};

/** What is the same in every event of an answer. */
export interface AnswerHead {
  readonly id: string;
  /** Seconds since 1970. */
  readonly created: number;
  readonly model: string;
}

/** The prompts of an answer. */
export interface AnswerPrompts {
  /** Tokens of all. */
  readonly promptTokens: number;
  /** Choices of each; those of one prompt are neighbours. */
  readonly choicesPerPrompt: number;
}

/** Token counts of an answer; prompts that several choices share count once. */
function usage(choices: readonly ChoiceStream[], prompts: AnswerPrompts): object {
  const { promptTokens, choicesPerPrompt } = prompts;
  const sum = (some: readonly ChoiceStream[], of: 'generatedTokens' | 'cachedTokens'): number =>
    some.reduce((total, { generation }) => total + generation[of], 0);
  const firsts = choices.filter((_, index) => index % choicesPerPrompt === 0);
  const completionTokens = sum(choices, 'generatedTokens');
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: sum(firsts, 'cachedTokens') },
  };
}

/** The whole answer, after all choices have ended. */
export async function wholeAnswer(
  head: AnswerHead,
  shape: AnswerShape,
  choices: readonly ChoiceStream[],
  prompts: AnswerPrompts,
): Promise<object> {
  const texts = await Promise.all(
    choices.map(async (choice) => {
      let text = '';
      for await (const piece of choice.pieces()) text += piece;
      return text;
    }),
  );
  return {
    ...head,
    object: shape.object,
    choices: choices.map((choice, index) => ({
      index,
      ...shape.choice(texts[index] ?? ''),
      finish_reason: choice.end,
    })),
    usage: usage(choices, prompts),
  };
}

const event = (data: object): string => `data: ${JSON.stringify(data)}\n\n`;

/** The answer as server-sent events. Leaving early cancels all choices. */
export async function* eventStream(
  head: AnswerHead,
  shape: AnswerShape,
  choices: readonly ChoiceStream[],
  options: AnswerPrompts & { readonly includeUsage: boolean },
): AsyncGenerator<string, void, void> {
  const common = { ...head, object: shape.chunkObject };
  const rest = options.includeUsage ? { usage: null } : {};
  const chunk = (index: number, piece: object, end: ChoiceEnd | null): string =>
    event({ ...common, choices: [{ index, ...piece, finish_reason: end }], ...rest });
  const begun = new Set<number>();
  const pieceOf = (index: number, text: string): object => {
    const piece = shape.piece(text, !begun.has(index));
    begun.add(index);
    return piece;
  };
  try {
    for await (const { index, text } of interleaved(choices)) {
      if (text === undefined) {
        yield chunk(index, pieceOf(index, ''), choices[index]?.end ?? 'stop');
      } else yield chunk(index, pieceOf(index, text), null);
    }
    if (options.includeUsage) {
      yield event({ ...common, choices: [], usage: usage(choices, options) });
    }
  } catch (error) {
    // The status is gone already; clients of this API look for an error event.
    yield event(errorAnswer(error).body);
  } finally {
    for (const { generation } of choices) generation.cancel();
  }
  yield 'data: [DONE]\n\n';
}

/** Pieces of all choices as they come; without text where a choice has ended. */
async function* interleaved(
  choices: readonly ChoiceStream[],
): AsyncGenerator<{ readonly index: number; readonly text: string | undefined }, void, void> {
  const streams = choices.map((choice) => choice.pieces());
  const next = async (index: number): Promise<{ index: number; text: string | undefined }> => {
    const result = await streams[index]?.next();
    return { index, text: result?.done === false ? result.value : undefined };
  };
  const pending = new Map(streams.map((_, index) => [index, next(index)]));
  while (pending.size > 0) {
    const found = await Promise.race(pending.values());
    yield found;
    // Not before: while the client does not read, nobody would wait for a failure.
    if (found.text === undefined) pending.delete(found.index);
    else pending.set(found.index, next(found.index));
  }
}
