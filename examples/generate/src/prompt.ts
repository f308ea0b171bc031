/**
 * The prompt in two parts: what is read, and what is asked about it.
 *
 * The text's last tokens are held out of the first part. After the first part each policy is asked
 * how well it expects them (its perplexity); then the trunk reads them too, followed by the
 * question.
 */
import { readFile } from 'node:fs/promises';
import { fail, VramError } from '@vramkit/core';
import type { Tokenizer } from '@vramkit/example-runtime';
import type { DemoOptions } from './options.js';

/** Token ids of the prompt and what they came from. */
export interface DemoPrompt {
  /** Beginning of the conversation and the text, without its last tokens. */
  readonly body: Uint32Array;
  /** The text's last tokens. */
  readonly heldOut: Uint32Array;
  /** Question and the turn to the assistant; empty where the model only continues. */
  readonly question: Uint32Array;
  /** The question as text, or what the model does instead. */
  readonly questionText: string;
  readonly textSource: string;
}

const DEFAULT_QUESTION =
  'Who tells this story, and why does he go to sea? Answer in two sentences.';
/** Tokens of the text that are scored before they are read. */
export const HELD_OUT_TOKENS = 64;
const TINY_CONTEXT_BYTES = 900;

const excerpt = new URL('../texts/moby-dick-excerpt.txt', import.meta.url);

async function readText(options: PromptOptions): Promise<{ text: string; source: string }> {
  const file = options.promptFile;
  const text = await readFile(file ?? excerpt, 'utf8').catch((cause: unknown) => {
    throw new VramError('not-found', `cannot read the text '${file ?? excerpt.pathname}'`, {
      cause,
    });
  });
  if (text.trim() === '') fail('invalid-argument', `the prompt is empty: nothing is in '${file}'`);
  return { text: text.trimEnd(), source: file ?? 'Moby-Dick, chapter 1 (1851), public domain' };
}

/** What the prompt is built of. */
export type PromptOptions = Pick<DemoOptions, 'promptFile' | 'question'>;

/**
 * Builds the prompt for a model that follows instructions, or for one that only continues text.
 * @throws VramError `not-found` where the text cannot be read, `invalid-argument` where it is
 * empty.
 */
export async function buildPrompt(
  options: PromptOptions,
  tokenizer: Tokenizer,
): Promise<DemoPrompt> {
  const { text, source: textSource } = await readText(options);
  const split = (ids: Uint32Array): Pick<DemoPrompt, 'body' | 'heldOut'> => {
    const at = Math.max(1, ids.length - HELD_OUT_TOKENS);
    return { body: ids.subarray(0, at), heldOut: ids.subarray(at) };
  };
  if (!tokenizer.hasChatTemplate) {
    const read = options.promptFile === undefined ? text.slice(0, TINY_CONTEXT_BYTES) : text;
    return {
      ...split(tokenizer.encode(read, { addSpecial: true })),
      question: new Uint32Array(),
      questionText: 'None: this model does not follow instructions, it continues the text.',
      textSource,
    };
  }
  const questionText = options.question ?? DEFAULT_QUESTION;
  const content = `Read this text.\n\n${text}\n\n${questionText}`;
  const rendered = tokenizer.applyChatTemplate([{ role: 'user', content }]);
  const textEnd = rendered.indexOf(text) + text.length;
  return {
    ...split(tokenizer.encode(rendered.slice(0, textEnd), { addSpecial: false })),
    question: tokenizer.encode(rendered.slice(textEnd), { addSpecial: false }),
    questionText,
    textSource,
  };
}
