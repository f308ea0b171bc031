/**
 * Puts two blobs and is killed at one step of that: `put-step KIND PLACE STEP MOMENT`. Prints a
 * line after each put; ends with 0 where it took fewer steps.
 */
import { armKill, outlive, watchDriver, type KillMoment } from '../kill-step.js';
import { NEW_BYTES, NEXT_BYTES } from '../put-bytes.js';
import type { StoreKind } from '../stores.js';

const [kind, place = '', step, moment] = process.argv.slice(2);
// The suite that starts it gives a kind and a moment.
await watchDriver(kind as StoreKind, Number(step), moment as KillMoment);
// Loaded only now, so that it finds the calls that are watched.
const { openStore } = await import('../stores.js');
const { store } = await openStore(kind as StoreKind, place);
armKill();
await store.put('steps/kept', NEXT_BYTES);
process.stdout.write('kept\n');
await store.put('steps/folder/new', NEW_BYTES, { condition: 'absent' });
process.stdout.write('new\n');
await outlive();
process.exit(0);
