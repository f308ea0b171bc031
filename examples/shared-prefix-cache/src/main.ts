/**
 * Several processes, one prefix: the first computes it, the others load it, and one that is killed
 * in the middle of its work harms nobody: `npm run shared-prefix-cache -- --help`.
 *
 * Ends with 0 where all answers are those of a process without the shared blocks, and the workers
 * after the first loaded the prefix.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { programOptions } from '@vramkit/adapter';
import { CLAIM_MS } from './shared-blocks.js';
import { startWorker } from './worker-process.js';

const HELP = `Several processes share the blocks of a prefix; some are killed in the middle of it.

usage: npm run shared-prefix-cache -- --index URL --blobs PLACE [options]

  --index URL        the database: postgres://user@host/database
  --blobs PLACE      folder of the blocks, or the address of a store
  --drivers FOLDER   where the store's driver is looked for
  --model NAME       tiny-moe, smollm2 or a path (default: tiny-moe)
  --workers N        processes, one after the other (default: 3)
  --kills N          processes that are killed before (default: 1)`;

const { index, blobs, model, drivers, workers, kills } = programOptions(HELP, {
  index: undefined,
  blobs: undefined,
  model: 'tiny-moe',
  workers: 3,
  kills: 1,
  drivers: undefined,
});
if (index === undefined || blobs === undefined) {
  process.stderr.write(`give --index and --blobs\n\n${HELP}\n`);
  process.exit(2);
}

const PREFIX = 'And the LORD spake unto the people, and said: '.repeat(6);

const prompts = ['Hear ', 'Go up ', 'Behold ', 'Woe '].map((question) => PREFIX + question);
const alone = await startWorker(model);
const expected: string[] = [];
for (const prompt of prompts) expected.push((await alone.ask(`${prompt} `)).text);
await alone.end();
process.stdout.write(`alone: ${expected.length} answers\n`);
const place = [index, blobs, ...(drivers === undefined ? [] : [drivers])];
// Killed while they compute and store, each a little later in its work.
for (let kill = 0; kill < kills; kill += 1) {
  const victim = await startWorker(model, place);
  victim.send(`${prompts[kill % prompts.length]} `);
  await sleep((400 * (kill + 1)) / kills);
  await victim.kill();
}
process.stdout.write(`${kills} killed in the middle of the first answer\n`);
// Until then nobody stores the blocks that they had claimed, and the second worker may find none.
await sleep(CLAIM_MS);

let isRight = true;
for (let i = 0; i < workers; i += 1) {
  const worker = await startWorker(model, place);
  for (const [which, prompt] of prompts.entries()) {
    const answer = await worker.ask(`${prompt} `);
    isRight &&= answer.text === expected[which];
    if (i > 0) isRight &&= answer.restoredTokens > 0;
    process.stdout.write(
      `worker ${i + 1}: ${answer.restoredTokens} of ${answer.promptTokens} tokens loaded, first ` +
        `token after ${answer.firstTokenMs.toFixed(0)} ms, ` +
        `${answer.text === expected[which] ? 'the same answer' : 'ANOTHER ANSWER'}\n`,
    );
  }
  await worker.end();
}
process.exitCode = isRight ? 0 : 1;
