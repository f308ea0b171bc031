/**
 * Kills writers at random points of a checkpoint, and looks at what is left after each.
 *
 * A worker process saves checkpoints in a loop; it is killed by SIGKILL a random time after it
 * began, between nothing and twice what a checkpoint takes here. Then a fresh store must give a
 * complete checkpoint, every byte of which is right, and no older than the one before.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { seededRandom } from '@vramkit/core/testing';
import { build } from 'esbuild';
import { checkpointsOf, stepName, stepTensors, verifyLatest } from './checkpoint-steps.js';
import { openStore, type StoreKind } from './stores.js';

/** What was seen. */
export interface KillReport {
  readonly kills: number;
  /** The last complete step. */
  readonly steps: number;
  /** Kills after which an unfinished save was left behind. */
  readonly leftovers: number;
}

/** How many kills a suite asks for; `VRAMKIT_KILLS` says otherwise. */
export const killCount = Number(process.env['VRAMKIT_KILLS'] ?? 16);

/** Saves two checkpoints, so that there is one to lose; gives the second's milliseconds. */
async function saveMs(kind: StoreKind, place: string): Promise<number> {
  const { store, close } = await openStore(kind, place);
  const checkpoints = checkpointsOf(store);
  let begin = 0;
  for (const step of [1, 2]) {
    begin = performance.now();
    await checkpoints.save(stepName(step), stepTensors(step), { metadata: { step } });
  }
  const durationMs = performance.now() - begin;
  await close();
  return durationMs;
}

/**
 * Bundles a worker, because it starts hundreds of times; beside the sources, so that it finds its
 * drivers.
 */
export async function bundleWorker(
  name: string,
): Promise<{ readonly script: string; readonly remove: () => Promise<void> }> {
  const folder = await mkdtemp(join(import.meta.dirname, '../node_modules/.worker-'));
  const script = join(folder, `${name}.mjs`);
  await build({
    entryPoints: [join(import.meta.dirname, `workers/${name}.ts`)],
    outfile: script,
    bundle: true,
    platform: 'node',
    format: 'esm',
    conditions: ['@vramkit/source'],
    external: ['libsql', 'pg', '@aws-sdk/client-s3', 'koffi', 'webgpu'],
    logLevel: 'error',
  });
  return { script, remove: () => rm(folder, { recursive: true }) };
}

/** Runs and kills `kills` writers; throws where a checkpoint is not whole. */
export async function killWriters(
  kind: StoreKind,
  place: string,
  kills: number,
): Promise<KillReport> {
  const { script: worker, remove } = await bundleWorker('save-steps');
  const random = seededRandom(kills);
  let steps = 2;
  let leftovers = 0;
  try {
    const rangeMs = Math.ceil(2 * (await saveMs(kind, place)));
    for (let kill = 0; kill < kills; kill += 1) {
      const child = spawn(process.execPath, [worker, kind, place], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const ended = once(child, 'exit');
      await Promise.race([once(child.stdout, 'data'), ended]);
      if (child.exitCode !== null) throw new Error(`the writer ended with ${child.exitCode}`);
      await new Promise((resolve) => setTimeout(resolve, random.integer(0, rangeMs)));
      child.kill('SIGKILL');
      await ended;
      const { store, close } = await openStore(kind, place);
      const step = await verifyLatest(checkpointsOf(store));
      if (step < steps) throw new Error(`step ${steps} was complete, then ${step} was the latest`);
      steps = step;
      const checkpoints = checkpointsOf(store);
      const names = new Set<string>();
      for await (const { key } of store.list('checkpoints/')) names.add(key.split('/')[1] ?? '');
      leftovers += names.size > (await checkpoints.list()).length ? 1 : 0;
      await close();
    }
  } finally {
    await remove();
  }
  return { kills, steps, leftovers };
}
