/** Streams of answers whose generations fail. */
import type { Generation, Tokenizer } from '@vramkit/example-runtime';
import { expect, it } from 'vitest';
import { eventStream, TEXT_SHAPE } from './answer.js';
import { ChoiceStream } from './choice-stream.js';

/** A generation of one token that fails when it is told to. */
function failing(): { readonly generation: Generation; readonly fail: () => void } {
  let fail = (): void => undefined;
  const failed = new Promise<void>((resolve) => (fail = resolve));
  const generation: Generation = {
    promptTokens: 1,
    cachedTokens: 0,
    generatedTokens: 1,
    finishReason: undefined,
    cancel: () => undefined,
    async *[Symbol.asyncIterator]() {
      yield 0;
      await failed;
      throw new Error('gone');
    },
  };
  return { generation, fail };
}

it('a failure while the client does not read waits for it, as an event', async () => {
  const decoder = { push: () => 'a', end: () => '' };
  // Nothing else of a tokenizer is asked for.
  const tokenizer = { createDecoder: () => decoder } as Partial<Tokenizer> as Tokenizer;
  const { generation, fail } = failing();
  const choices = [new ChoiceStream(generation, tokenizer, [])];
  const head = { id: 'x', created: 0, model: 'm' };
  const options = { promptTokens: 1, choicesPerPrompt: 1, includeUsage: false };
  const events = eventStream(head, TEXT_SHAPE, choices, options);
  expect((await events.next()).value).toContain('"text":"a"');
  fail();
  // A rejection that nobody waits for by then ends the process.
  await new Promise((resolve) => setImmediate(resolve));
  expect((await events.next()).value).toContain('the server failed');
  expect((await events.next()).value).toBe('data: [DONE]\n\n');
});
