/**
 * Several processes, one prefix: the first computes it, the others load it, and one that is killed
 * in the middle of its work harms nobody.
 *
 *     npm run shared-prefix-cache -- \
 *       --index postgres://user@host/database --blobs ./blobs
 *
 * Ends with 0 where all answers are those of a process without the shared blocks, and the workers
 * after the first loaded the prefix.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import type { WorkerAnswer } from './worker.js';

const { values } = parseArgs({
  options: {
    index: { type: 'string' },
    blobs: { type: 'string' },
    model: { type: 'string', default: 'tiny-moe' },
    workers: { type: 'string', default: '3' },
  },
});
const { index, blobs, model } = values;
if (index === undefined || blobs === undefined) {
  process.stderr.write('give --index postgres://... and --blobs URL|FOLDER\n');
  process.exit(2);
}

const PREFIX = 'And the LORD spake unto the people, and said: '.repeat(6);

class Worker {
  readonly process: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(place: readonly string[]) {
    const args = [...process.execArgv, join(import.meta.dirname, 'worker.ts'), model, ...place];
    this.process = spawn(process.execPath, args, {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const { stdout } = this.process;
    if (stdout === null) throw new Error('the output of a worker is a pipe');
    this.#lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  async line(): Promise<string> {
    const next = await this.#lines.next();
    if (next.done === true) throw new Error('a worker ended too early');
    return next.value;
  }

  async ask(prompt: string): Promise<WorkerAnswer> {
    this.process.stdin?.write(`${prompt}\n`);
    return JSON.parse(await this.line()) as WorkerAnswer; // of our own worker
  }

  async end(): Promise<void> {
    this.process.stdin?.end();
    if (this.process.exitCode === null) await once(this.process, 'exit');
  }
}

async function start(...place: readonly string[]): Promise<Worker> {
  const worker = new Worker(place);
  await worker.line();
  return worker;
}

const prompts = ['Hear ', 'Go up ', 'Behold ', 'Woe '].map((question) => PREFIX + question);
const alone = await start();
const expected: string[] = [];
for (const prompt of prompts) expected.push((await alone.ask(`${prompt} `)).text);
await alone.end();
process.stdout.write(`alone: ${expected.length} answers\n`);
// Killed while it computes and stores.
const victim = await start(index, blobs);
victim.process.stdin?.write(`${prompts[0]} \n`);
await new Promise((resolve) => setTimeout(resolve, 400));
victim.process.kill('SIGKILL');
await once(victim.process, 'exit');
process.stdout.write('one worker was killed in the middle of its first answer\n');

let isRight = true;
for (let i = 0; i < Number(values.workers); i += 1) {
  const worker = await start(index, blobs);
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
