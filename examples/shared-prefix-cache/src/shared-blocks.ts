/**
 * K/V blocks that several processes share: bytes in a blob store, everything else in the index.
 *
 * A block is written once, by whoever claimed it; the others compute it themselves meanwhile and
 * wait for nobody. A process that is killed leaves a claim that ends, or a blob that no row names;
 * {@link SharedBlocks.collect} and {@link SharedBlocks.sweep} of any other process remove both.
 * Bytes are checksummed and named by their content, so a reader that comes too late finds a miss,
 * never other bytes.
 */
import { randomUUID } from 'node:crypto';
import { assertArgument, isVramError } from '@vramkit/core';
import type { KvBlockStore } from '@vramkit/example-runtime';
import { checksummedStore, readBlob, type BlobStore } from '@vramkit/storage';
import type { PrefixIndex, StoredBlock } from './prefix-index.js';

/** Options of {@link SharedBlocks}. */
export interface SharedBlocksOptions {
  /** How long a writer or a remover may take; longer than any put. Default: 60 s. */
  readonly workMs?: number;
  /** How long a block stays after its last use, at least twice `workMs`. Default: 1 h. */
  readonly keepMs?: number;
  /** Milliseconds, steady. Default: `performance.now`. */
  readonly clock?: () => number;
}

/** How long a claim of this example's workers holds, in ms: blocks of a killed one wait so long. */
export const CLAIM_MS = 2000;

const FOLDER = 'shared-kv/';
const PAGE = 256;

/** Blocks by name, for an engine's `kvStore`; store and index stay the caller's. */
export class SharedBlocks implements KvBlockStore {
  readonly #store: BlobStore;
  readonly #index: PrefixIndex;
  readonly #workMs: number;
  readonly #keepMs: number;
  readonly #clock: () => number;
  /** Blocks that may be read, and until when by the clock of this process. */
  readonly #held = new Map<string, { readonly blob: string; readonly untilMs: number }>();

  constructor(store: BlobStore, index: PrefixIndex, options: SharedBlocksOptions = {}) {
    const { workMs = 60_000, keepMs = 3_600_000 } = options;
    assertArgument(keepMs >= 2 * workMs, `keepMs ${keepMs} is less than twice workMs ${workMs}`);
    this.#store = checksummedStore(store);
    this.#index = index;
    this.#workMs = workMs;
    this.#keepMs = keepMs;
    this.#clock = options.clock ?? (() => performance.now());
  }

  async match(names: readonly string[]): Promise<number> {
    // The lease counts from when it was asked for, so that this clock is never behind.
    const untilMs = this.#clock() + this.#workMs;
    const held = await this.#index.hold(names, this.#workMs, this.#keepMs);
    for (const [name, { untilMs: end }] of this.#held) {
      if (end < this.#clock()) this.#held.delete(name);
    }
    for (const [name, blob] of held) this.#held.set(name, { blob, untilMs });
    const missing = names.findIndex((name) => !held.has(name));
    return missing < 0 ? names.length : missing;
  }

  async store(name: string, block: Uint8Array): Promise<boolean> {
    const claim: StoredBlock = { name, blob: randomUUID() };
    if (!(await this.#index.claim(claim, block.length, this.#workMs))) return false;
    try {
      await this.#store.put(keyOf(claim), block);
      if (await this.#index.publish(claim, this.#keepMs)) return true;
    } catch (error) {
      await this.#remove(claim).catch(() => undefined);
      throw error;
    }
    await this.#store.delete(keyOf(claim));
    return false;
  }

  async load(name: string): Promise<Uint8Array | undefined> {
    const held = this.#held.get(name);
    if (held === undefined || held.untilMs < this.#clock()) return undefined;
    const block = { name, blob: held.blob };
    try {
      return await readBlob(this.#store, keyOf(block));
    } catch (error) {
      const isGone = isVramError(error, 'not-found') || isVramError(error, 'corrupt-data');
      if (!isGone) throw error;
      // Somebody else deleted or damaged it: the next one may store it anew.
      await this.#index.condemn(block);
      return undefined;
    }
  }

  /** Removes blocks whose lease is over; any process may, at any time. How many it removed. */
  async collect(): Promise<number> {
    let count = 0;
    for (;;) {
      const reaped = await this.#index.reap(PAGE, this.#workMs);
      for (const block of reaped) await this.#remove(block);
      count += reaped.length;
      if (reaped.length < PAGE) return count;
    }
  }

  /**
   * Removes blobs that no row names: of writers that were killed after their claim was over. A
   * claim comes before its blob, so a blob without a row is nobody's. How many it removed.
   */
  async sweep(): Promise<number> {
    let count = 0;
    let page: StoredBlock[] = [];
    const removeUnknown = async (): Promise<void> => {
      const known = await this.#index.known(page);
      for (const block of page.filter(({ blob }) => !known.has(blob))) {
        await this.#store.delete(keyOf(block));
        count += 1;
      }
      page = [];
    };
    for await (const { key } of this.#store.list(FOLDER)) {
      const [, name = '', blob = ''] = key.slice(FOLDER.length).split('/');
      page.push({ name, blob });
      if (page.length === PAGE) await removeUnknown();
    }
    await removeUnknown();
    return count;
  }

  /** The blob first: a row without a blob is found again, a blob without a row only by a sweep. */
  async #remove(block: StoredBlock): Promise<void> {
    await this.#store.delete(keyOf(block));
    await this.#index.forget(block);
  }
}

function keyOf({ name, blob }: StoredBlock): string {
  return `${FOLDER}${name.slice(0, 2)}/${name}/${blob}`;
}
