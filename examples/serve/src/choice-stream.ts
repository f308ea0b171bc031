/**
 * One choice of an answer: the tokens of a generation as text, with its stop strings applied.
 */
import type { Generation, Tokenizer } from '@vramkit/example-runtime';
import { StopStrings } from './stop-strings.js';

/** Why a choice ended, in the words of the API. */
export type ChoiceEnd = 'stop' | 'length';

/** A generation that is read as text. */
export class ChoiceStream {
  readonly generation: Generation;
  readonly #tokenizer: Tokenizer;
  readonly #stops: StopStrings;

  constructor(generation: Generation, tokenizer: Tokenizer, stops: readonly string[]) {
    this.generation = generation;
    this.#tokenizer = tokenizer;
    this.#stops = new StopStrings(stops);
  }

  /** Pieces of text, none empty. Leaving early cancels the generation. */
  async *pieces(): AsyncGenerator<string, void, void> {
    const decoder = this.#tokenizer.createDecoder();
    for await (const id of this.generation) {
      const text = this.#stops.push(decoder.push(id));
      if (text !== '') yield text;
      if (this.#stops.isStopped) return;
    }
    const rest = this.#stops.push(decoder.end()) + this.#stops.end();
    if (rest !== '') yield rest;
  }

  /** Why it ended; for after {@link pieces}. */
  get end(): ChoiceEnd {
    return !this.#stops.isStopped && this.generation.finishReason === 'length' ? 'length' : 'stop';
  }
}
