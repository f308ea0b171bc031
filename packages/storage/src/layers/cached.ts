/**
 * Keeps parts of a far store's blobs in a near one, within a budget.
 *
 * Blobs are cut into parts of a fixed size. A get asks the far store for the blob's version (one
 * head), takes the parts that the near store has of that version, fetches the others and keeps
 * them. So a stale part is never served: a new version has other parts. What leaves is decided by a
 * replacement policy; what is where is core's `Residency`, one tier of it.
 *
 * Near keys are `cache/<sha256 of name, key, version, part>`, so a cache that is opened again on
 * the same near store finds what an earlier process kept; put a checksum layer over it. A near
 * store that fails is passed by: the far store answers, and the failure goes to `onNearError`.
 */
import { createHash } from 'node:crypto';
import {
  checkInteger,
  isVramError,
  Residency,
  throwIfAborted,
  type ReplacementPolicy,
} from '@vramkit/core';
import { gather } from '../blob-body.js';
import { checkInto, checkKey, checkRange, rangeEnd } from '../blob-key.js';
import type { BlobStore, GetOptions } from '../blob-store.js';
import { conflictError, failNotFound, lostCondition } from '../store-error.js';
import { unlessAborted, wrapStore } from './wrap.js';

/** Options of {@link cachedStore}. */
export interface CacheOptions {
  /** Where parts are kept; nothing else may use its keys below `cache/`. */
  readonly near: BlobStore;
  /** Most bytes of parts in the near store. */
  readonly budgetBytes: number;
  /** Who leaves when there is no room; ids are near keys. */
  readonly policy: ReplacementPolicy<string>;
  /** Bytes of a part, at least 4 KiB. Default: 1 MiB. */
  readonly partBytes?: number;
  /** Told of every failure of the near store, which is passed by. Default: nobody. */
  readonly onNearError?: (error: unknown) => void;
}

/** A store whose gets are served from near where they can; see the notes of this module. */
export interface CachedStore extends BlobStore {
  /** What the near store was asked for and had, in parts, and bytes that it holds. */
  stats(): { readonly hits: number; readonly misses: number; readonly residentBytes: number };
}

const PREFIX = 'cache/';

/** Opens a cache; what the near store holds already is taken over. Both stay the caller's. */
export async function cachedStore(far: BlobStore, options: CacheOptions): Promise<CachedStore> {
  const { near, budgetBytes, policy, partBytes = 2 ** 20 } = options;
  checkInteger('partBytes', partBytes, 4096);
  const parts = new PartCache(near, budgetBytes, policy, options.onNearError);
  await parts.adopt();

  async function* get(key: string, getOptions: GetOptions = {}) {
    const { offsetBytes = 0, lengthBytes, version, into, signal } = getOptions;
    checkKey(key);
    checkRange(offsetBytes, lengthBytes);
    const info = (await far.head(key, { signal })) ?? failNotFound(far.name, key);
    if (version !== undefined && version !== info.version) {
      throw conflictError(far.name, key, lostCondition({ version }));
    }
    const end = rangeEnd(key, info.sizeBytes, offsetBytes, lengthBytes);
    checkInto({ into, lengthBytes: end - offsetBytes });
    for (let at = offsetBytes; at < end;) {
      throwIfAborted(signal);
      const index = Math.floor(at / partBytes);
      const start = index * partBytes;
      const sizeBytes = Math.min(partBytes, info.sizeBytes - start);
      const range = { offsetBytes: start, lengthBytes: sizeBytes, version: info.version };
      const id = partKey(far.name, key, info.version, index, partBytes);
      // Others may wait for the same fetch: it has no signal, and each leaves by its own.
      const wait = parts.get(id, sizeBytes, () => gather(far.get(key, range)));
      const part = await unlessAborted(wait, signal);
      const until = Math.min(end, start + sizeBytes);
      // A copy, of a Buffer too: readers share the part.
      yield new Uint8Array(part.subarray(at - start, until - start));
      at = until;
    }
  }

  return { ...wrapStore(far, { get }), stats: () => parts.stats() };
}

function partKey(...name: readonly (string | number)[]): string {
  return PREFIX + createHash('sha256').update(JSON.stringify(name)).digest('hex');
}

class PartCache {
  readonly #near: BlobStore;
  readonly #residency: Residency<string, 'near'>;
  readonly #report: (error: unknown) => void;
  readonly #fetching = new Map<string, Promise<Uint8Array>>();
  #hits = 0;
  #misses = 0;

  constructor(
    near: BlobStore,
    budgetBytes: number,
    policy: ReplacementPolicy<string>,
    report: (error: unknown) => void = () => undefined,
  ) {
    this.#near = near;
    this.#residency = new Residency({ tiers: [{ name: 'near', budgetBytes, policy }] });
    this.#report = report;
  }

  stats() {
    const { residentBytes } = this.#residency.usage('near');
    return { hits: this.#hits, misses: this.#misses, residentBytes };
  }

  /**
   * Takes over the parts of an earlier process; what does not fit the budget is deleted. What a
   * near store that fails does not list stays there, beyond the budget, until it is put again.
   */
  async adopt(): Promise<void> {
    try {
      for await (const { key, sizeBytes } of this.#near.list(PREFIX)) {
        const fits = this.#residency.tryAdd(key, { sizeBytes, tier: 'near', recreatable: true });
        if (!fits) await this.#near.delete(key);
      }
    } catch (error) {
      this.#report(error);
    }
  }

  /** A part from near, or fetched and kept; callers of one part share a fetch. */
  async get(id: string, sizeBytes: number, fetch: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const fetching = this.#fetching.get(id);
    if (fetching !== undefined) return fetching;
    if (this.#residency.has(id)) {
      this.#residency.touch(id, 'near');
      this.#residency.pin(id, 'near');
      try {
        const part = await gather(this.#near.get(id));
        if (part.length === sizeBytes) {
          this.#hits += 1;
          return part;
        }
      } catch (error) {
        this.#report(error);
      } finally {
        this.#residency.unpin(id, 'near');
      }
      await this.#drop(id, 'explicit');
    }
    const shared = this.#fetching.get(id);
    if (shared !== undefined) return shared;
    this.#misses += 1;
    const running = this.#fetchAndKeep(id, fetch).finally(() => this.#fetching.delete(id));
    this.#fetching.set(id, running);
    return running;
  }

  async #fetchAndKeep(id: string, fetch: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const part = await fetch();
    try {
      const victims = this.#residency.planRoom('near', part.length) ?? [];
      for (const victim of victims) await this.#drop(victim.id, 'capacity');
      const options = { sizeBytes: part.length, tier: 'near', recreatable: true } as const;
      if (!this.#residency.tryAdd(id, options)) return part; // larger than what can leave
      this.#residency.pin(id, 'near');
      let isKept = false;
      try {
        await this.#near.put(id, part);
        isKept = true;
      } finally {
        this.#residency.unpin(id, 'near');
        if (!isKept) await this.#drop(id, 'explicit');
      }
    } catch (error) {
      this.#report(error);
    }
    return part;
  }

  async #drop(id: string, reason: 'capacity' | 'explicit'): Promise<void> {
    try {
      this.#residency.drop(id, 'near', reason);
      await this.#near.delete(id);
    } catch (error) {
      // Another reader holds it, or dropped it already.
      if (!isVramError(error, 'invalid-argument')) this.#report(error);
    }
  }
}
