/**
 * Fields of requests that would change the answer and are not supported.
 *
 * They are OpenAI's and those that clients know from other servers. One is let through where it is
 * absent, null or says what happens anyway; any other value is refused, because silence would be a
 * wrong answer. Fields that are in no list change nothing and are ignored.
 */
import { isDeepStrictEqual } from 'node:util';
import { HttpError } from './http-error.js';

/** By name, the values that say what happens anyway. */
const UNSUPPORTED: Readonly<Record<string, readonly unknown[]>> = {
  // OpenAI's, of either route.
  audio: [],
  best_of: [1],
  echo: [false],
  frequency_penalty: [0],
  function_call: ['none', 'auto'],
  functions: [[]],
  logit_bias: [{}],
  logprobs: [false],
  modalities: [['text']],
  presence_penalty: [0],
  response_format: [{ type: 'text' }],
  suffix: [''],
  tool_choice: ['none', 'auto'],
  tools: [[]],
  top_logprobs: [0],
  web_search_options: [],
  // Of vLLM and llama.cpp.
  allowed_token_ids: [[]],
  bad_words: [[]],
  chat_template: [],
  continue_final_message: [false],
  grammar: [''],
  guided_choice: [],
  guided_grammar: [],
  guided_json: [],
  guided_regex: [],
  ignore_eos: [false],
  json_schema: [],
  min_p: [0],
  min_tokens: [0],
  prompt_logprobs: [],
  repeat_penalty: [1],
  repetition_penalty: [1],
  stop_token_ids: [[]],
  structured_outputs: [],
  truncate_prompt_tokens: [],
  use_beam_search: [false],
};

/** @throws HttpError 400 naming the first field that would change the answer. */
export function refuseUnsupported(body: object): void {
  for (const [name, value] of Object.entries(body)) {
    const allowed = Object.hasOwn(UNSUPPORTED, name) ? UNSUPPORTED[name] : undefined;
    if (allowed === undefined || value === null) continue;
    if (allowed.some((each) => isDeepStrictEqual(each, value))) continue;
    const message = `'${name}' is not supported by this server`;
    throw new HttpError(400, message, 'unsupported_parameter', name);
  }
}
