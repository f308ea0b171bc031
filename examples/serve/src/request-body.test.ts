/** Messages become what templates know; what is not supported is refused by name. */
import type { ChatMessage, Tokenizer } from '@vramkit/example-runtime';
import { expect, it } from 'vitest';
import { chatPrompt, type ChatBody } from './request-body.js';

function messagesOf(...messages: ChatBody['messages'][number][]): readonly ChatMessage[] {
  let given: readonly ChatMessage[] = [];
  const tokenizer: Partial<Tokenizer> = {
    hasChatTemplate: true,
    encodeChat: (rendered) => {
      given = rendered;
      return new Uint32Array();
    },
  };
  // Nothing else of a tokenizer is asked for.
  chatPrompt({ model: 'm', messages }, tokenizer as Tokenizer);
  return given;
}

it('takes texts, parts of text, developers and an assistant without content', () => {
  expect(
    messagesOf(
      { role: 'developer', content: 'Be brief.' },
      { role: 'assistant', content: null, tool_calls: [] },
      { role: 'assistant' },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'a' },
          { type: 'text', text: 'b' },
        ],
      },
    ),
  ).toEqual([
    { role: 'system', content: 'Be brief.' },
    { role: 'assistant', content: '' },
    { role: 'assistant', content: '' },
    { role: 'user', content: 'ab' },
  ]);
});

it.each([
  [{ role: 'tool', content: '7' }, /the role 'tool' is not supported/, 'role'],
  [{ role: 'user', content: [{ type: 'image_url' }] }, /'image_url' is not supp/, 'content[0]'],
  [{ role: 'assistant', tool_calls: [{}] }, /'tool_calls' in a message is not supp/, 'tool_calls'],
  [{ role: 'user', content: null }, /'messages\[0\]\.content' is missing/, 'content'],
])('refuses %j', (message, text, field) => {
  expect(() => messagesOf(message)).toThrow(
    expect.objectContaining({
      statusCode: 400,
      message: expect.stringMatching(text),
      param: `messages[0].${field}`,
    }),
  );
});
