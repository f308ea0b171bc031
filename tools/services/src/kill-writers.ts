/**
 * Kills writers at random points of a checkpoint, and looks at what is left after each.
 *
 * A worker process saves checkpoints in a loop and says which saves have resolved; it is killed by
 * SIGKILL a random time after it began, between nothing and twice what a checkpoint takes here.
 * Then a fresh store must give the last checkpoint that the worker had said to be saved, or the one
 * that it was saving, with every byte right: nothing older, nothing else, no mixture.
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
  /** Kills between the beginning and the end of a save; the others hit the pruning of old ones. */
  readonly midSave: number;
  /** Kills after which the checkpoint that was being saved was the latest, and whole. */
  readonly latest: number;
  /** Kills after which it was the one before, and whole. */
  readonly previous: number;
  /** What was neither: a lost step, a mixture, a damaged byte. */
  readonly wrong: readonly string[];
}

/** How many kills a suite asks for; `VRAMKIT_KILLS` says otherwise. */
export const killCount = Number(process.env['VRAMKIT_KILLS'] ?? 8);

/** Whether more is asked for than what a change must pass. */
export const isLongRun = killCount >= 100;

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
    external: ['libsql', 'pg', '@aws-sdk/client-s3', '@smithy/*', 'koffi', 'webgpu'],
    logLevel: 'error',
  });
  return { script, remove: () => rm(folder, { recursive: true }) };
}

/** Runs a writer, kills it after a while, and gives what it had said last: saving or saved what. */
async function killOne(command: readonly string[], delayMs: () => number) {
  const child = spawn(process.execPath, [...command], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  let said = '';
  child.stdout.on('data', (part: Buffer) => (said += part.toString()));
  await Promise.race([once(child.stdout, 'data'), ended]);
  if (child.exitCode !== null) throw new Error(`the writer ended with ${child.exitCode}`);
  await new Promise((resolve) => setTimeout(resolve, delayMs()));
  child.kill('SIGKILL');
  await ended;
  const [what, step] = said.trimEnd().split('\n').at(-1)?.split(' ') ?? [];
  const isMidSave = what === 'saving';
  return { isMidSave, saved: Number(step) - (isMidSave ? 1 : 0) };
}

/** The step of the latest checkpoint, every byte of which is right. */
async function latestStep(kind: StoreKind, place: string): Promise<number> {
  const { store, close } = await openStore(kind, place);
  try {
    return await verifyLatest(checkpointsOf(store));
  } finally {
    await close();
  }
}

/** Runs and kills `kills` writers. */
export async function killWriters(
  kind: StoreKind,
  place: string,
  kills: number,
): Promise<KillReport> {
  const { script, remove } = await bundleWorker('save-steps');
  const random = seededRandom(kills);
  const wrong: string[] = [];
  let [midSave, latest, previous] = [0, 0, 0];
  try {
    const rangeMs = Math.ceil(2 * (await saveMs(kind, place)));
    for (let kill = 0; kill < kills; kill += 1) {
      const command = [script, kind, place];
      const { isMidSave, saved } = await killOne(command, () => random.integer(0, rangeMs));
      midSave += isMidSave ? 1 : 0;
      try {
        const step = await latestStep(kind, place);
        const isNext = isMidSave && step === saved + 1;
        latest += isNext ? 1 : 0;
        previous += step === saved ? 1 : 0;
        if (step !== saved && !isNext) wrong.push(`step ${saved} was saved, ${step} is the latest`);
      } catch (error) {
        wrong.push(String(error));
      }
    }
  } finally {
    await remove();
  }
  return { kills, midSave, latest, previous, wrong };
}
