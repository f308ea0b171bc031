/**
 * Several processes, one prefix: the first computes it, the others load it, and one that is killed
 * in the middle of its work harms nobody.
 *
 *     npm run shared-prefix-cache -- \
 *       --index postgres://user@host/database --blobs ./blobs
 *
 * `--blobs` is a folder or the address of a store, whose driver is looked for below `--drivers`.
 * Ends with 0 where all answers are those of a process without the shared blocks, and the workers
 * after the first loaded the prefix.
 */
import { parseArgs } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLAIM_MS } from './shared-blocks.js';
import { startWorker } from './worker-process.js';

const { values } = parseArgs({
  options: {
    index: { type: 'string' },
    blobs: { type: 'string' },
    model: { type: 'string', default: 'tiny-moe' },
    workers: { type: 'string', default: '3' },
    kills: { type: 'string', default: '1' },
    drivers: { type: 'string' },
  },
});
const { index, blobs, model, drivers } = values;
if (index === undefined || blobs === undefined) {
  process.stderr.write('give --index postgres://... and --blobs URL|FOLDER\n');
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
const kills = Number(values.kills);
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
for (let i = 0; i < Number(values.workers); i += 1) {
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
