/** Fields that would change the answer are refused by name; those that change nothing pass. */
import { expect, it } from 'vitest';
import { refuseUnsupported } from './unsupported-fields.js';

const tool = { type: 'function', function: { name: 'f' } };

it.each([
  ['functions', [{ name: 'f' }]],
  ['tools', [tool]],
  ['tool_choice', 'required'],
  ['tool_choice', tool],
  ['modalities', ['audio']],
  ['modalities', ['text', 'audio']],
  ['top_logprobs', 3],
  ['logprobs', true],
  ['logprobs', 0],
  ['response_format', { type: 'json_object' }],
  ['min_tokens', 5],
  ['ignore_eos', true],
  ['stop_token_ids', [2]],
  ['repetition_penalty', 1.1],
  ['min_p', 0.1],
  ['logit_bias', { 5: 1 }],
  ['n_predict', 4],
  ['mirostat', 2],
  ['typical_p', 0.5],
  ['xtc_probability', 0.1],
  ['include_stop_str_in_output', true],
  ['skip_special_tokens', false],
  ['add_generation_prompt', false],
])('refuses %s of %j', (name, value) => {
  expect(() => refuseUnsupported({ model: 'm', [name]: value })).toThrow(
    expect.objectContaining({
      statusCode: 400,
      message: `'${name}' is not supported by this server`,
      code: 'unsupported_parameter',
      param: name,
    }),
  );
});

it('lets through what changes nothing', () => {
  refuseUnsupported({
    ...{
      tool_choice: 'auto',
      tools: [],
      functions: null,
      modalities: ['text'],
      top_logprobs: null,
    },
    ...{ response_format: { type: 'text' }, logprobs: false, frequency_penalty: 0, user: 'me' },
    ...{ mirostat: 0, typical_p: 1, skip_special_tokens: true, cache_prompt: true },
    ...{ min_p: 0, repetition_penalty: 1, ignore_eos: false, logit_bias: {}, constructor: 1 },
  });
});
