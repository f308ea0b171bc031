/** Kills a writer at every step of its puts, and looks at what is there afterwards. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readBlob, type BlobStore } from '@vramkit/storage';
import { bundleWorker, isLongRun } from './kill-writers.js';
import type { KillMoment } from './kill-step.js';
import { NEW_BYTES, NEXT_BYTES, OLD_BYTES } from './put-bytes.js';
import { openStore, type StoreKind } from './stores.js';

const MAX_STEPS = 200;

/** When a suite kills; a long run also kills in the middle of steps. */
export const moments: readonly KillMoment[] = isLongRun ? ['before', 'during'] : ['before'];

/** What the blob of a key is: one of the names of `known`, or wrong. */
async function find(
  store: BlobStore,
  key: string,
  known: Readonly<Record<string, Uint8Array>>,
): Promise<string> {
  if ((await store.head(key)) === undefined) return 'none';
  const bytes = await readBlob(store, key);
  const match = Object.entries(known).find(([, each]) => Buffer.compare(each, bytes) === 0);
  return match?.[0] ?? `${bytes.length} B of something else`;
}

/** Runs the writer; gives the puts that it said were done, and whether it came to its end. */
async function runWriter(command: readonly string[]) {
  const child = spawn(process.execPath, [...command], { stdio: ['ignore', 'pipe', 'inherit'] });
  let said = '';
  child.stdout.on('data', (part: Buffer) => (said += part.toString()));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code !== null && code !== 0) throw new Error(`the writer ended with ${code}`);
  return { done: said.split('\n').filter(Boolean), isWhole: code === 0 };
}

/**
 * Kills at step 1, 2, ... until the writer comes to its end.
 * @returns The steps of both puts, and what was wrong after which.
 */
export async function killAtEachStep(
  kind: StoreKind,
  place: string,
  moment: KillMoment,
): Promise<{ readonly steps: number; readonly wrong: readonly string[] }> {
  const { script, remove } = await bundleWorker('put-step');
  const wrong: string[] = [];
  try {
    for (let step = 1; step <= MAX_STEPS; step += 1) {
      const before = await openStore(kind, place);
      await before.store.put('steps/kept', OLD_BYTES);
      await before.store.delete('steps/folder/new');
      await before.close();
      const { done, isWhole } = await runWriter([script, kind, place, String(step), moment]);
      const { store, close } = await openStore(kind, place);
      const kept = await find(store, 'steps/kept', { old: OLD_BYTES, next: NEXT_BYTES });
      const made = await find(store, 'steps/folder/new', { new: NEW_BYTES });
      const names: string[] = [];
      for await (const { key } of store.list('steps/')) names.push(key.slice(6));
      await close();
      const isKept = kept === 'next' || (kept === 'old' && !done.includes('kept'));
      const isMade = made === 'new' || (made === 'none' && !done.includes('new'));
      const listed = made === 'new' ? ['folder/new', 'kept'] : ['kept'];
      if (!isKept || !isMade || names.join() !== listed.join()) {
        wrong.push(`step ${step}: ${kept}, ${made}, listed ${names.join()}, done ${done.join()}`);
      }
      if (isWhole) return { steps: step - 1, wrong };
    }
    throw new Error(`more than ${MAX_STEPS} steps`);
  } finally {
    await remove();
  }
}
