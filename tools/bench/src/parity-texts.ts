/**
 * What both sides read in the parity check.
 *
 * The four prompts are ones that llama.cpp itself is sure about: in its exact setting the best
 * token leads the second by at least 0.2 nats in each of the first 16 steps. Of 20 candidates 5
 * had that lead; where it is smaller, two settings of llama.cpp part from each other as well, so
 * a parting of ours would not tell an error from rounding.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { workspaceFolder } from './peers.js';

/** A prompt and a name for it. */
export interface ParityPrompt {
  /** Short name for the terminal. */
  readonly name: string;
  /** The text, special tokens spelled out. */
  readonly text: string;
}

/** Tokens that are scored; one more is read, because the first has nothing before it. */
export const scoredTokens = 2000;

/** Chapter 1 of Moby-Dick: 2,859 tokens of plain text in SmolLM2's vocabulary. */
export function readPlainText(): Promise<string> {
  return readFile(join(workspaceFolder, 'examples/generate/texts/moby-dick-chapter-1.txt'), 'utf8');
}

/** The four prompts. */
export async function parityPrompts(): Promise<readonly ParityPrompt[]> {
  const chat = (question: string): string =>
    `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n`;
  const text = await readPlainText();
  return [
    { name: 'primes', text: 'The first ten prime numbers are' },
    { name: 'sky', text: chat('Explain in a few sentences why the sky is blue.') },
    { name: 'italy', text: chat('What is the capital of Italy, and what is it known for?') },
    { name: 'loomings', text: text.slice(0, 1200) },
  ];
}
