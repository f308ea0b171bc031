/**
 * Program: 32 clients of the server against unbatched generation, on any model; see
 * shared-prefix.ts.
 *
 * `npx nx run @vramkit/example-serve:check-shared-prefix -- --model smollm2 --clients 32`
 */
import { createGpu, programOptions } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import { loadModel, loadTokenizer, openModelFile } from '@vramkit/example-runtime';
import { resolveModel } from '@vramkit/models';
import { compareSharedPrefix } from './shared-prefix.js';

const SENTENCE =
  'You are a patient assistant who answers questions about the sea, about whales and about those ' +
  'who hunt them. You give short answers, say so when you do not know, and never invent a name. ';
const QUESTIONS = [
  'What is the largest whale',
  'Where do sperm whales live',
  'How deep can a whale dive',
  'What do right whales eat',
];

const HELP = `Clients of the server that share a prefix, beside generation without batches.

usage: npx nx run @vramkit/example-serve:check-shared-prefix -- [options]

  --model NAME    smollm2, tiny-moe or a path (default: smollm2)
  --clients N     (default: 32)
  --sentences N   of the prefix (default: 8)
  --tokens N      of each answer (default: 16)`;

const options = programOptions(HELP, { model: 'smollm2', clients: 32, sentences: 8, tokens: 16 });
const { clients } = options;
const { gpu, adapter, driver } = await createGpu();
using device = await openDevice({ gpu });
const file = await openModelFile((await resolveModel(options.model)).path);
const tokenizer = await loadTokenizer(file);
const model = await loadModel(device, file).finally(() => file.close());
const result = await compareSharedPrefix(device, model, tokenizer, {
  shared: SENTENCE.repeat(options.sentences),
  questions: Array.from(
    { length: clients },
    (_, i) => `Question ${i + 1}: ${QUESTIONS[i % QUESTIONS.length]}?\nAnswer:`,
  ),
  maxTokens: options.tokens,
});
model.dispose();
const same = result.given.filter((text, index) => text === result.expected[index]).length;
const { promptTokens, prefillTokens, sharedTokens, unbatchedSeconds, servedSeconds } = result;
const once = promptTokens - (clients - 1) * sharedTokens;
process.stdout.write(
  `${options.model} on ${adapter} (${driver})\n` +
    `answers equal to unbatched generation: ${same} of ${clients}\n` +
    `prompt tokens: ${promptTokens}; computed by the server: ${prefillTokens}; ` +
    `with the shared ${sharedTokens} computed once: ${once}\n` +
    `seconds: ${unbatchedSeconds.toFixed(1)} one by one from a fork of the shared beginning, ` +
    `${servedSeconds.toFixed(1)} served at once\n`,
);
process.exitCode = same === clients && prefillTokens === once ? 0 : 1;
