/** Ends of a pool of threads: nothing is left waiting, and nothing runs on. */
import { expect, it } from 'vitest';
import { HostPool, type HostJob } from './index.js';
import type { HostWorker, SpawnWorker } from './index.js';

const memory = new WebAssembly.Memory({ initial: 4, maximum: 4, shared: true });
const JOB: HostJob = { kernel: 'add_f32', addresses: [1024, 2048], strides: [4, 4], count: 16 };
const code = (name: string) => expect.objectContaining({ code: name });

/** Threads that note what they are told, and answer when asked to. */
function silent(): { spawn: SpawnWorker; ended: () => number; answer: () => void } {
  let ended = 0;
  const answers: (() => void)[] = [];
  const spawn: SpawnWorker = (): HostWorker => {
    let listener: (message: unknown) => void = () => undefined;
    return {
      post: (message) => {
        const { id } = message as { id?: number };
        if (id !== undefined) answers.push(() => listener({ id }));
      },
      onMessage: (each) => void (listener = each),
      onLost: () => undefined,
      terminate: () => Promise.resolve(void (ended += 1)),
    };
  };
  return { spawn, ended: () => ended, answer: () => answers.splice(0).forEach((each) => each()) };
}

it.each([0, -1, 1.5, NaN])('has no %d threads', (threads) => {
  expect(() => new HostPool(memory, { threads })).toThrow(code('invalid-argument'));
});

it('fails jobs under way, and later ones, once it is disposed', async () => {
  const { spawn, ended } = silent();
  const pool = new HostPool(memory, { threads: 2, spawn });
  const jobs = Promise.allSettled([pool.run(JOB), pool.run(JOB)]);
  await new Promise((resolve) => setTimeout(resolve, 50));
  await pool.dispose();
  await pool.dispose();
  expect(ended()).toBe(2);
  for (const job of await jobs) expect(job).toMatchObject({ reason: code('disposed') });
  await expect(pool.run(JOB)).rejects.toEqual(code('disposed'));
});

it('starts no threads where it is disposed before they are there', async () => {
  const spawn: SpawnWorker = () => expect.unreachable('no thread is started');
  const pool = new HostPool(memory, { spawn });
  const job = pool.run(JOB);
  await pool.dispose();
  await expect(job).rejects.toEqual(code('disposed'));
});
