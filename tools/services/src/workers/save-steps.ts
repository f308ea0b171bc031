/**
 * Saves checkpoints until it is killed: `save-steps KIND PLACE`. Prints a line when it begins to
 * save a step, and one when that save has resolved; the first is the last complete step.
 */
import { checkpointsOf, saveSteps } from '../checkpoint-steps.js';
import { openStore, type StoreKind } from '../stores.js';

const [kind, place = ''] = process.argv.slice(2);
const { store } = await openStore(kind as StoreKind, place); // the suite that starts it gives one
const checkpoints = checkpointsOf(store);
const latest = Number((await checkpoints.latest())?.metadata['step'] ?? 0);
const say = (what: string, step: number): void => {
  process.stdout.write(`${what} ${step}\n`); // a pipe, so it is written when this returns
};
say('saved', latest);
await saveSteps(checkpoints, latest + 1, say);
