/**
 * Random operations on a store of which every tenth call fails, half of them after they took
 * effect. Under the retry layer all of them succeed; without it each succeeds or fails typed, and
 * what is there afterwards is what was there or what was put, never anything else.
 */
import { isVramError } from '@vramkit/core';
import { seededRandom } from '@vramkit/core/testing';
import { chaoticStore, readBlob, retriedStore, type BlobStore } from '@vramkit/storage';
import { testBytes } from '@vramkit/storage/testing';

/** What was seen. */
export interface ChaosReport {
  readonly operations: number;
  /** Operations that failed, all of them with the code of the fault. */
  readonly failed: number;
  /** What must not be: untyped errors, other bytes, lost blobs. */
  readonly wrong: readonly string[];
}

const FAILURE_RATE = 0.1;
const OPERATIONS = 250;
const NAMES = ['a', 'b', 'c/d', 'c/e', 'f'];

/** What may be under a name: sizes that follow from seeds; `undefined` is no blob. */
type Possible = readonly (number | undefined)[];

function contentOf(seed: number): Uint8Array {
  return testBytes(seed % 7 === 0 ? 1_200_000 + seed : (seed * 977) % 50_000, seed);
}

/** Those of `seeds` whose content a blob of `bytes` is. */
function matching(seeds: Possible, bytes: Uint8Array | undefined): Possible {
  return seeds.filter((seed) =>
    seed === undefined || bytes === undefined
      ? seed === bytes
      : Buffer.compare(contentOf(seed), bytes) === 0,
  );
}

async function find(store: BlobStore, key: string): Promise<Uint8Array | undefined> {
  return (await store.head(key)) === undefined ? undefined : readBlob(store, key);
}

/** Walks below `prefix`. */
export async function chaosWalk(
  store: BlobStore,
  prefix: string,
  isRetried: boolean,
): Promise<ChaosReport> {
  const random = seededRandom(isRetried ? 41 : 42);
  const chaos = chaoticStore(store, { random: random.uniform, failureRate: FAILURE_RATE });
  const retry = { random: random.uniform, tries: 12, baseDelayMs: 0, maxDelayMs: 2 };
  const subject = isRetried ? retriedStore(chaos, retry) : chaos;
  const possible = new Map<string, Possible>(NAMES.map((name) => [name, [undefined]]));
  const wrong: string[] = [];
  let failed = 0;

  /** Runs an operation; a failure that is not the fault's, or any under the retry layer, is wrong. */
  const attempt = async (what: string, run: () => Promise<void>): Promise<boolean> => {
    try {
      await run();
      return true;
    } catch (error) {
      failed += 1;
      const isFault = isVramError(error, 'unavailable') && error.retryable;
      if (!isFault || isRetried) wrong.push(`${what}: ${String(error)}`);
      return false;
    }
  };
  const change = async (what: string, name: string, next: number | undefined): Promise<void> => {
    const key = prefix + name;
    const before = possible.get(name) ?? [];
    const isDone = await attempt(what, async () => {
      if (next === undefined) await subject.delete(key);
      else await subject.put(key, contentOf(next));
    });
    possible.set(name, isDone ? [next] : [...before, next]);
  };
  const create = async (name: string, seed: number): Promise<void> => {
    const before = possible.get(name) ?? [];
    const wasAbsent = before.length === 1 && before[0] === undefined;
    if (!wasAbsent) return; // a conflict would be right or wrong
    const isDone = await attempt('create', async () => {
      await subject.put(prefix + name, contentOf(seed), { condition: 'absent' });
    });
    possible.set(name, isDone ? [seed] : [undefined, seed]);
  };
  const read = async (name: string): Promise<void> => {
    const before = possible.get(name) ?? [];
    await attempt('read', async () => {
      const bytes = await find(subject, prefix + name);
      const match = matching(before, bytes);
      if (match.length === 0) wrong.push(`'${name}' has ${bytes?.length} B of something else`);
      else possible.set(name, match);
    });
  };
  const list = (): Promise<boolean> =>
    attempt('list', async () => {
      const found = new Set<string>();
      for await (const { key } of subject.list(prefix)) found.add(key.slice(prefix.length));
      for (const [name, seeds] of possible) {
        const isSure = seeds.every((seed) => (seed === undefined) === (seeds[0] === undefined));
        const isThere = seeds[0] !== undefined;
        if (isSure && found.has(name) !== isThere) wrong.push(`list: '${name}' ${isThere}`);
      }
    });

  for (let step = 1; step <= OPERATIONS; step += 1) {
    const name = NAMES[random.integer(0, NAMES.length - 1)] ?? '';
    const choice = random.uniform();
    if (choice < 0.35) await change('put', name, step);
    else if (choice < 0.45) await change('delete', name, undefined);
    else if (choice < 0.55) await create(name, step);
    else if (choice < 0.9) await read(name);
    else await list();
  }
  // Without faults at last: each blob is whole, and is one that it can be.
  for (const [name, seeds] of possible) {
    const bytes = await find(store, prefix + name);
    if (matching(seeds, bytes).length === 0) {
      wrong.push(`at the end '${name}' has ${bytes?.length} B of something else`);
    }
    await store.delete(prefix + name);
  }
  return { operations: OPERATIONS, failed, wrong };
}
