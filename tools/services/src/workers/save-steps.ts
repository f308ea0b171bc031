/** Saves checkpoints until it is killed: `save-steps KIND PLACE`; says "ready" when it begins. */
import { checkpointsOf, saveSteps } from '../checkpoint-steps.js';
import { openStore, type StoreKind } from '../stores.js';

const [kind, place = ''] = process.argv.slice(2);
const { store } = await openStore(kind as StoreKind, place); // the suite that starts it gives one
const checkpoints = checkpointsOf(store);
const latest = await checkpoints.latest();
process.stdout.write('ready\n');
await saveSteps(checkpoints, Number(latest?.metadata['step'] ?? 0) + 1);
