/**
 * Prefixes that outlive their eviction and their process: blocks of the KV cache in a block store.
 *
 * ```
 *   a request comes  ── match ──▶ admit ─▶ prepareLoad ─▶ load, write ─▶ complete ─▶ it is hit
 *   a request ends   ─▶ prepareStore ─▶ match ─▶ read ─▶ store ─▶ complete
 * ```
 *
 * Blocks are stored when their last user lets go, that is when they can be evicted: the pool hands
 * a kept block out in the midst of planning a step, which is too late to read it. The bookkeeping
 * is the two-phase calls of `KvTiers`; a block is in its storage tier for as long as it is moved,
 * and what the store holds is the store's to know.
 *
 * A block that cannot be loaded is a miss, and everything behind it is computed; a failed store
 * loses nothing but the time it would have saved. Both are counted, neither ends a request. A store
 * that did not answer in time is left alone for a while, so that not every request waits for it.
 *
 * Loads of several requests run one after the other, so that many with one prefix load it once; the
 * blocks of one prefix come several at once.
 */
import { assertArgument, isVramError } from '@vramkit/core';
import { KvTiers, type KvCacheManager, type TierMove } from '@vramkit/block-allocator';
import type { PagedKvCache } from '@vramkit/paged-attention';
import { prefixNames, type KvIdentity } from '@vramkit/storage';

/** Blocks by name, as `prefixNames` of `@vramkit/storage` gives them. */
export interface KvBlockStore {
  /** How many of the first names can be loaded. */
  match(names: readonly string[]): Promise<number>;
  /** Whether the block is kept. */
  store(name: string, block: Uint8Array): Promise<boolean>;
  /** The bytes, the caller's own; `undefined` where there are none or they are damaged. */
  load(name: string): Promise<Uint8Array | undefined>;
}

/** A store of blocks, and what its blocks were computed by. */
export interface KvStoreOptions {
  readonly blocks: KvBlockStore;
  readonly identity: KvIdentity;
}

/** Counts since the engine was made; plain data. */
export interface PrefixStoreMetrics {
  /** Prompt tokens that were loaded. */
  readonly restoredTokens: number;
  /** Blocks that were stored. */
  readonly storedBlocks: number;
  /** Loads and stores that failed: a store that cannot be reached, say. */
  readonly storeFailures: number;
}

/** Blocks read from the device, and blocks in flight to or from the store, at once. */
const BATCH_BLOCKS = 16;
/** How long a store that did not answer in time is left alone. */
const PAUSE_MS = 10_000;

/** Moves blocks between one KV cache and one store. */
export class PrefixStore {
  readonly #blocks: KvBlockStore;
  readonly #identity: KvIdentity;
  readonly #manager: KvCacheManager;
  readonly #cache: PagedKvCache;
  readonly #tiers: KvTiers;
  readonly #running = new Set<Promise<void>>();
  readonly #storing = new Set<Promise<void>>();
  readonly #counts = { restoredTokens: 0, storedBlocks: 0, storeFailures: 0 };
  #lastLoad: Promise<void> = Promise.resolve();
  #pausedUntilMs = 0;

  /** @throws VramError `invalid-argument` where the identity is not that of the cache. */
  constructor(options: KvStoreOptions, manager: KvCacheManager, cache: PagedKvCache) {
    const { blocks, identity } = options;
    const { blockSize, dtype } = cache.layout;
    assertArgument(
      identity.blockSize === blockSize && identity.dtype === dtype,
      `the store's blocks have ${identity.blockSize} tokens of ${identity.dtype}, the cache's ` +
        `${blockSize} of ${dtype}`,
    );
    this.#blocks = blocks;
    this.#identity = identity;
    this.#manager = manager;
    this.#cache = cache;
    const { blockCount } = manager.pool;
    this.#tiers = new KvTiers(manager, { host: { blocks: 1 }, storage: { blocks: blockCount } });
  }

  /** Counts so far; a snapshot. */
  metrics(): PrefixStoreMetrics {
    return { ...this.#counts };
  }

  /** Brings what is stored of a prompt's prefix to the device, before it is looked up. */
  load(tokens: Uint32Array, namespace: string): Promise<void> {
    this.#lastLoad = this.#watch(this.#lastLoad.then(() => this.#load(tokens, namespace)));
    return this.#lastLoad;
  }

  /**
   * Begins to store the full blocks of a sequence that is about to end; they cannot be evicted
   * until they are stored.
   */
  store(tokens: Uint32Array, blocks: Uint32Array, namespace: string): void {
    const stored = this.#watch(this.#store(tokens, blocks, namespace));
    this.#storing.add(stored);
    void stored.finally(() => this.#storing.delete(stored));
  }

  /** Whether blocks are held for a load or a store. */
  get isMoving(): boolean {
    return this.#running.size > 0;
  }

  /** Resolves once nothing moves. */
  async settle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  /** Counts a failure in place of throwing it. */
  #watch(work: Promise<void>): Promise<void> {
    const watched = work
      .catch((error: unknown) => {
        this.#counts.storeFailures += 1;
        if (isVramError(error, 'timeout')) this.#pausedUntilMs = performance.now() + PAUSE_MS;
      })
      .finally(() => this.#running.delete(watched));
    this.#running.add(watched);
    return watched;
  }

  get #isPaused(): boolean {
    return performance.now() < this.#pausedUntilMs;
  }

  #names(tokens: Uint32Array, namespace: string): string[] {
    return prefixNames({ ...this.#identity, salt: namespace }, tokens);
  }

  async #load(tokens: Uint32Array, namespace: string): Promise<void> {
    if (this.#isPaused) return;
    const keys = namespace === '' ? {} : { namespace };
    // The last token is always computed, for its logits.
    const names = this.#names(tokens.subarray(0, -1), namespace);
    const { blockSize } = this.#manager.pool;
    const isOnDevice = this.#manager.match(tokens, keys) >= names.length * blockSize;
    if (names.length === 0 || isOnDevice) return;
    const known = await this.#blocks.match(names);
    const contents = this.#tiers.admit(tokens, known, 'storage', keys);
    let transfer = this.#tiers.prepareLoad(tokens, keys);
    if (transfer === undefined) {
      await Promise.all(this.#storing); // blocks that are being stored come back
      transfer = this.#tiers.prepareLoad(tokens, keys);
    }
    const arrived = new Set<TierMove>();
    try {
      const moves = transfer?.moves ?? [];
      for (let first = 0; first < moves.length; first += BATCH_BLOCKS) {
        const batch = moves.slice(first, first + BATCH_BLOCKS);
        const loaded = await Promise.all(
          batch.map((move) => this.#blocks.load(names[contents.indexOf(move.content)] ?? '')),
        );
        for (const [index, move] of batch.entries()) {
          const bytes = loaded[index];
          if (bytes === undefined) return; // what is behind it would not be hit
          this.#cache.writeBlocks(new Map([[move.target, bytes]]));
          arrived.add(move);
        }
      }
    } finally {
      if (transfer !== undefined) this.#tiers.complete(transfer, (move) => arrived.has(move));
      for (const content of contents) this.#tiers.drop(content, 'storage');
      this.#counts.restoredTokens += arrived.size * blockSize;
    }
  }

  async #store(tokens: Uint32Array, blocks: Uint32Array, namespace: string): Promise<void> {
    if (this.#isPaused) return;
    const names = this.#names(tokens, namespace);
    const nameOf = new Map(names.map((name, index) => [blocks[index] ?? 0, { name, index }]));
    const transfer = this.#tiers.prepareStore(blocks.slice(0, names.length), 'storage');
    if (transfer === undefined) return;
    const arrived = new Set<TierMove>();
    try {
      const known = await this.#blocks.match(names);
      const isNew = ({ source }: TierMove): boolean => (nameOf.get(source)?.index ?? 0) >= known;
      const moves = transfer.moves.filter(isNew);
      for (let first = 0; first < moves.length; first += BATCH_BLOCKS) {
        const batch = moves.slice(first, first + BATCH_BLOCKS);
        const read = await this.#cache.readBlocks(batch.map(({ source }) => source));
        await Promise.all(
          batch.map(async (move) => {
            const name = nameOf.get(move.source)?.name;
            const bytes = read.get(move.source);
            if (name === undefined || bytes === undefined) return;
            if (await this.#blocks.store(name, bytes)) arrived.add(move);
          }),
        );
      }
    } finally {
      this.#tiers.complete(transfer, (move) => arrived.has(move));
      for (const { content } of transfer.moves) this.#tiers.drop(content, 'storage');
      this.#counts.storedBlocks += arrived.size;
    }
  }
}
