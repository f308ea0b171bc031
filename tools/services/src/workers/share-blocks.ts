/**
 * Works on the shared blocks until it is killed: `share-blocks KIND PLACE SEED`. Says "ready" when
 * it begins; ends with 3 where it reads a wrong byte.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { PrefixIndex, SharedBlocks } from '@vramkit/example-shared-prefix-cache';
import { seededRandom } from '@vramkit/core/testing';
import { blockBytes, blockNames, SHORT_LEASES } from '../shared-cache.js';
import { openStore, pgPool, type StoreKind } from '../stores.js';

const [kind, place = '', seed] = process.argv.slice(2);
const { store } = await openStore(kind as StoreKind, place); // the suite that starts it gives one
const random = seededRandom(Number(seed));
const index = await PrefixIndex.open(await pgPool(), random.uniform);
const blocks = new SharedBlocks(store, index, SHORT_LEASES);
process.stdout.write('ready\n');
for (let step = 0; ; step += 1) {
  const first = random.integer(0, blockNames.length - 1);
  const names = blockNames.slice(first, first + random.integer(1, 6));
  const known = await blocks.match(names);
  for (const name of names.slice(0, known)) {
    const bytes = await blocks.load(name);
    if (bytes !== undefined && Buffer.compare(bytes, blockBytes(name)) !== 0) process.exit(3);
  }
  for (const name of names.slice(known)) await blocks.store(name, blockBytes(name));
  if (step % 8 === 7) await blocks.collect();
  // Some blocks are left alone for longer than their lease.
  if (step % 16 === 15) await sleep(random.integer(0, 200));
}
