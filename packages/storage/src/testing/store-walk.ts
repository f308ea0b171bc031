/** Random operations on a store beside a plain map from name to bytes. */
import { seededRandom } from '@vramkit/core/testing';
import { compareKeys } from '../blob-key.js';
import { testBytes, type StoreTest } from './store-test.js';

const NAMES = ['a', 'b/1', 'b/2', 'b/deep/er', 'c.d', 'c-d', 'é', 'f/😀'];

/** Walks; each step is checked against the map. */
export async function storeWalk(test: StoreTest, seed: number, steps: number): Promise<void> {
  const random = seededRandom(seed);
  const model = new Map<string, Uint8Array>();
  const pick = (): string => NAMES[random.integer(0, NAMES.length - 1)] ?? 'a';
  const put = async (condition?: 'absent'): Promise<void> => {
    const name = pick();
    const size = random.uniform() < 0.1 ? random.integer(0, 3_000_000) : random.integer(0, 3000);
    const bytes = testBytes(size, random.uint32());
    const promise = test.store.put(test.key(name), bytes, { condition });
    if (condition !== undefined && model.has(name)) {
      await test.rejects('conflict', promise);
      return;
    }
    test.same('size', (await promise).sizeBytes, size);
    model.set(name, bytes);
  };
  const read = async (): Promise<void> => {
    const name = pick();
    const bytes = model.get(name);
    if (bytes === undefined) {
      await test.rejects('not-found', test.read(name));
      return;
    }
    const offsetBytes = random.integer(0, bytes.length);
    const lengthBytes = random.integer(0, bytes.length - offsetBytes);
    const part = await test.read(name, { offsetBytes, lengthBytes }, test.other);
    test.sameBytes(name, part, bytes.subarray(offsetBytes, offsetBytes + lengthBytes));
  };
  for (let step = 0; step < steps; step += 1) {
    const choice = random.uniform();
    if (choice < 0.35) await put();
    else if (choice < 0.45 && test.store.capabilities.createIfAbsent) await put('absent');
    else if (choice < 0.75) await read();
    else if (choice < 0.9) {
      const name = pick();
      await test.store.delete(test.key(name));
      model.delete(name);
    } else {
      test.same('names', await test.names(), [...model.keys()].sort(compareKeys));
    }
  }
}
