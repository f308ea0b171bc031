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
  add_generation_prompt: [true],
  allowed_token_ids: [[]],
  bad_words: [[]],
  chat_template: [],
  continue_final_message: [false],
  dry_multiplier: [0],
  dynatemp_range: [0],
  grammar: [''],
  guided_choice: [],
  guided_grammar: [],
  guided_json: [],
  guided_regex: [],
  ignore_eos: [false],
  include_stop_str_in_output: [false],
  json_schema: [],
  logits_processors: [[]],
  lora: [[]],
  min_p: [0],
  min_tokens: [0],
  mirostat: [0],
  n_indent: [0],
  n_predict: [],
  n_probs: [0],
  prompt_embeds: [],
  prompt_logprobs: [],
  repeat_penalty: [1],
  repetition_penalty: [1],
  samplers: [],
  skip_special_tokens: [true],
  stop_token_ids: [[]],
  structured_outputs: [],
  t_max_predict_ms: [-1, 0],
  top_n_sigma: [-1],
  truncate_prompt_tokens: [],
  typical_p: [1],
  use_beam_search: [false],
  xtc_probability: [0],
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
