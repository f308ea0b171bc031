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
  /** Operations that failed, all of them with the code of the fault. */
  readonly failed: number;
  /** What must not be: untyped errors, other bytes, lost blobs. */
  readonly wrong: readonly string[];
}

const FAILURE_RATE = 0.1;
const NAMES = ['a', 'b', 'c/d', 'c/e', 'f'];

/** What may be under a name: contents by their seed; `undefined` is no blob. */
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

class ChaosWalk {
  readonly wrong: string[] = [];
  failed = 0;
  readonly #store: BlobStore;
  readonly #prefix: string;
  readonly #isRetried: boolean;
  readonly #possible = new Map<string, Possible>(NAMES.map((name) => [name, [undefined]]));

  constructor(store: BlobStore, prefix: string, isRetried: boolean) {
    this.#store = store;
    this.#prefix = prefix;
    this.#isRetried = isRetried;
  }

  /** What may be under a name now. */
  possible(name: string): Possible {
    return this.#possible.get(name) ?? [];
  }

  /** Puts or deletes. */
  async change(name: string, next: number | undefined): Promise<void> {
    const key = this.#prefix + name;
    const isDone = await this.#attempt(`change '${name}'`, async () => {
      if (next === undefined) await this.#store.delete(key);
      else await this.#store.put(key, contentOf(next));
    });
    this.#possible.set(name, isDone ? [next] : [...this.possible(name), next]);
  }

  /** Puts where it is known that there is nothing; else a conflict would be right or wrong. */
  async create(name: string, seed: number): Promise<void> {
    if (this.possible(name).some((each) => each !== undefined)) return;
    const condition = 'absent';
    const isDone = await this.#attempt(`create '${name}'`, async () => {
      await this.#store.put(this.#prefix + name, contentOf(seed), { condition });
    });
    this.#possible.set(name, isDone ? [seed] : [undefined, seed]);
  }

  async read(name: string): Promise<void> {
    await this.#attempt(`read '${name}'`, async () => {
      this.expect(name, await find(this.#store, this.#prefix + name));
    });
  }

  /** Notes what is under a name. */
  expect(name: string, bytes: Uint8Array | undefined): void {
    const match = matching(this.possible(name), bytes);
    if (match.length === 0) this.wrong.push(`'${name}' has ${bytes?.length} B of something else`);
    else this.#possible.set(name, match);
  }

  async list(): Promise<void> {
    await this.#attempt('list', async () => {
      const found = new Set<string>();
      for await (const { key } of this.#store.list(this.#prefix)) {
        found.add(key.slice(this.#prefix.length));
      }
      for (const [name, seeds] of this.#possible) {
        const isThere = seeds[0] !== undefined;
        const isSure = seeds.every((seed) => (seed !== undefined) === isThere);
        if (isSure && found.has(name) !== isThere) this.wrong.push(`listed '${name}': ${!isThere}`);
      }
    });
  }

  /** A failure that is not the fault's, or any under the retry layer, is wrong. */
  async #attempt(what: string, run: () => Promise<void>): Promise<boolean> {
    try {
      await run();
      return true;
    } catch (error) {
      this.failed += 1;
      const isFault = isVramError(error, 'unavailable') && error.retryable;
      if (!isFault || this.#isRetried) this.wrong.push(`${what}: ${String(error)}`);
      return false;
    }
  }
}

/** Walks below `prefix`. */
export async function chaosWalk(
  store: BlobStore,
  prefix: string,
  isRetried: boolean,
  steps = 250,
): Promise<ChaosReport> {
  const random = seededRandom(isRetried ? 41 : 42);
  const chaos = chaoticStore(store, { random: random.uniform, failureRate: FAILURE_RATE });
  const retry = { random: random.uniform, tries: 12, baseDelayMs: 0, maxDelayMs: 2 };
  const walk = new ChaosWalk(isRetried ? retriedStore(chaos, retry) : chaos, prefix, isRetried);
  for (let step = 1; step <= steps; step += 1) {
    const name = NAMES[random.integer(0, NAMES.length - 1)] ?? '';
    const choice = random.uniform();
    if (choice < 0.35) await walk.change(name, step);
    else if (choice < 0.45) await walk.change(name, undefined);
    else if (choice < 0.55) await walk.create(name, step);
    else if (choice < 0.9) await walk.read(name);
    else await walk.list();
  }
  // Without faults at last: each blob is whole, and is one that it can be.
  for (const name of NAMES) {
    walk.expect(name, await find(store, prefix + name));
    await store.delete(prefix + name);
  }
  return walk;
}
