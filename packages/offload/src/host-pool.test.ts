/** Ends of a pool of threads: nothing is left waiting, and nothing runs on. */
import { expect, it, vi } from 'vitest';
import { HostPool, type HostJob } from './index.js';
import type { HostWorker, SpawnWorker } from './index.js';

const memory = new WebAssembly.Memory({ initial: 4, maximum: 4, shared: true });
const JOB: HostJob = { kernel: 'add_f32', addresses: [1024, 2048], strides: [4, 4], count: 16 };
const code = (name: string) => expect.objectContaining({ code: name });

/** Threads that note what they are told, and answer when asked to. */
function silent() {
  let ended = 0;
  let busy: boolean | undefined;
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
      setBusy: (isBusy) => void (busy = isBusy),
      terminate: () => Promise.resolve(void (ended += 1)),
    };
  };
  const answer = (): void => answers.splice(0, 2).forEach((each) => each());
  const asked = (): number => answers.length;
  return { spawn, answer, asked, ended: () => ended, busy: () => busy };
}

it.each([0, -1, 1.5, NaN])('has no %d threads', (threads) => {
  expect(() => new HostPool(memory, { threads })).toThrow(code('invalid-argument'));
});

it('fails jobs under way, and later ones, once it is disposed', async () => {
  const { spawn, ended, asked } = silent();
  const pool = new HostPool(memory, { threads: 2, spawn });
  const jobs = Promise.allSettled([pool.run(JOB), pool.run(JOB)]);
  await vi.waitFor(() => expect(asked()).toBe(4));
  await pool.dispose();
  await pool.dispose();
  expect(ended()).toBe(2);
  for (const job of await jobs) expect(job).toMatchObject({ reason: code('disposed') });
  await expect(pool.run(JOB)).rejects.toEqual(code('disposed'));
});

it('lets the process end while no job is under way', async () => {
  const { spawn, answer, busy, asked } = silent();
  const pool = new HostPool(memory, { threads: 2, spawn });
  const first = pool.run(JOB);
  await vi.waitFor(() => expect(asked()).toBe(2));
  const second = pool.run(JOB);
  await vi.waitFor(() => expect(asked()).toBe(4));
  expect(busy()).toBe(true);
  answer();
  await first;
  expect(busy()).toBe(true);
  answer();
  await second;
  expect(busy()).toBe(false);
  await pool.dispose();
});

it('runs jobs whose caller waits for nothing else', async () => {
  const active = (): number =>
    process.getActiveResourcesInfo().filter((name) => name === 'MessagePort').length;
  const before = active();
  const pool = new HostPool(memory, { threads: 2 });
  const job = pool.run(JOB);
  await job;
  // What keeps Node alive is what was there before, though the threads are.
  expect(active()).toBe(before);
  await pool.dispose();
});

it('starts no threads where it is disposed before they are there', async () => {
  const spawn: SpawnWorker = () => expect.unreachable('no thread is started');
  const pool = new HostPool(memory, { spawn });
  const job = pool.run(JOB);
  await pool.dispose();
  await expect(job).rejects.toEqual(code('disposed'));
});
