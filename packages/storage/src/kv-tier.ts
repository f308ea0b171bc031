/**
 * K/V blocks of prefixes in a blob store, so that a prefix outlives its eviction and its process.
 *
 * Mental model: a block is named by what it was computed from. The name of a block is a SHA-256 of
 * the name before it and the block's tokens; the chain begins with the model's fingerprint, the
 * dtype, the block size and a salt. So equal names mean equal K and V, whoever computed them, and a
 * model that was changed finds nothing. Blobs never change; a second put of one is skipped.
 *
 * Two tiers below the device: `host`, bytes in this process, and `storage`, checksummed blobs. What
 * is where, what is moving and what must go is core's `Residency`; a block that is dropped can be
 * computed again, so nothing is ever lost for good. A block that is damaged, cut or gone is a miss
 * and is dropped: wrong bytes are never given.
 *
 * The device side (which slots hold a block) belongs to the block allocator; whoever owns the
 * bytes stores on eviction and loads on a hit. Source: hash chains over blocks as in vLLM's prefix
 * caching (2023); here the model is a part of the chain.
 */
import { createHash } from 'node:crypto';
import {
  assertArgument,
  checkInteger,
  isVramError,
  Residency,
  throwIfAborted,
  type ReplacementPolicy,
  type TierUsage,
} from '@vramkit/core';
import { checkKey } from './blob-key.js';
import type { BlobStore, CallOptions } from './blob-store.js';
import { checksummedStore, FRAME_BYTES } from './layers/checksummed.js';
import { readBlob } from './read-blob.js';

/** What makes two blocks of equal tokens equal. */
export interface KvIdentity {
  /** Anything that differs when weights, rotary settings or the K/V layout differ. */
  readonly model: string;
  /** How K and V are stored, such as 'f16'. */
  readonly dtype: string;
  /** Tokens of a block. */
  readonly blockSize: number;
  /** Keeps tenants apart: another salt finds nothing. Default: empty. */
  readonly salt?: string;
}

/** One tier of {@link KvTier}. */
export interface KvTierBudget {
  /** Most bytes of blocks; 0 for none. */
  readonly budgetBytes: number;
  /** Who goes first; ids are block names. */
  readonly policy: ReplacementPolicy<string>;
}

/** Options of {@link KvTier.open}. */
export interface KvTierOptions {
  /** What the blocks were computed by. */
  readonly identity: KvIdentity;
  /** Bytes of one block: K and V of all layers. */
  readonly blockBytes: number;
  /** Memory of this process. */
  readonly host: KvTierBudget;
  /** The store; what is in it beyond the budget when it is opened is deleted. */
  readonly storage: KvTierBudget;
  /** Begins all keys; ends with '/'. Default: 'kv/'. */
  readonly prefix?: string;
}

// Processes that put one block at the same time are few.
const MAX_READS = 8;

/** Names of the full blocks of a sequence, in order; linear in the tokens. */
export function prefixNames(identity: KvIdentity, tokens: ArrayLike<number>): string[] {
  const { blockSize } = identity;
  checkInteger('blockSize', blockSize, 1);
  const names: string[] = [];
  let parent = identityHash(identity);
  for (let end = blockSize; end <= tokens.length; end += blockSize) {
    // Little endian whatever the machine, so that machines can share a store.
    const bytes = new DataView(new ArrayBuffer(4 * blockSize));
    for (let i = 0; i < blockSize; i += 1) {
      bytes.setUint32(4 * i, tokens[end - blockSize + i] ?? 0, true);
    }
    parent = createHash('sha256').update(parent).update(bytes).digest();
    names.push(parent.toString('hex'));
  }
  return names;
}

function identityHash({ model, dtype, blockSize, salt = '' }: KvIdentity): Buffer {
  return createHash('sha256')
    .update(JSON.stringify([model, dtype, blockSize, salt]))
    .digest();
}

/** Blocks in memory and in a store; see the notes of this module. */
export class KvTier {
  /** With checksums. */
  readonly #store: BlobStore;
  /** Below them: of a damaged blob they may not know the size. */
  readonly #frames: BlobStore;
  readonly #folder: string;
  readonly #blockBytes: number;
  readonly #residency: Residency<string, 'host' | 'storage'>;
  readonly #host = new Map<string, Uint8Array>();
  readonly #busy = new Map<string, Promise<unknown>>();

  private constructor(store: BlobStore, folder: string, options: KvTierOptions) {
    this.#store = checksummedStore(store);
    this.#frames = store;
    this.#folder = folder;
    this.#blockBytes = checkInteger('blockBytes', options.blockBytes, 1);
    this.#residency = new Residency({
      tiers: [
        { name: 'host', ...options.host },
        { name: 'storage', ...options.storage },
      ],
    });
  }

  /** Opens the blocks of one identity, with those that are in the store already. */
  static async open(store: BlobStore, options: KvTierOptions): Promise<KvTier> {
    const { identity, prefix = 'kv/' } = options;
    assertArgument(prefix.endsWith('/'), "a prefix ends with '/'");
    const folder = `${prefix}${identityHash(identity).toString('hex').slice(0, 32)}/`;
    checkKey(`${folder}x`);
    const tier = new KvTier(store, folder, options);
    await tier.refresh();
    return tier;
  }

  /**
   * Finds blocks that other processes stored meanwhile, and forgets those that they deleted. One
   * list of the store.
   */
  async refresh(options: CallOptions = {}): Promise<void> {
    const idle = [...this.#residency.ids()].filter((name) => !this.#busy.has(name));
    const missing = new Set(idle);
    // 8 B of checksum for each frame, as layers/checksummed.ts says.
    const storedBytes = this.#blockBytes + 8 * Math.ceil(this.#blockBytes / FRAME_BYTES);
    for await (const { key, sizeBytes } of this.#frames.list(this.#folder, options)) {
      const name = key.slice(key.lastIndexOf('/') + 1);
      if (sizeBytes !== storedBytes) continue;
      missing.delete(name);
      if (this.#residency.has(name) || this.#tryAdd(name)) continue;
      await this.#store.delete(key, options);
    }
    for (const name of missing) {
      if (!this.#busy.has(name) && this.#residency.has(name))
        this.#drop(name, 'storage', 'explicit');
    }
  }

  /** How many of the first names are here, in either tier. */
  matchCount(names: readonly string[]): number {
    const missing = names.findIndex((name) => !this.#residency.has(name));
    return missing < 0 ? names.length : missing;
  }

  /** Bytes of a tier. */
  usage(tier: 'host' | 'storage'): TierUsage {
    return this.#residency.usage(tier);
  }

  /**
   * Keeps a block: in the store, and in memory where there is room. Call it when the device evicts.
   * @returns Whether it is kept; false where no victim may go or the budget is too small.
   * @throws VramError what the store throws; the block is then not kept.
   */
  async store(name: string, block: Uint8Array, options: CallOptions = {}): Promise<boolean> {
    assertArgument(block.length === this.#blockBytes, `a block has ${this.#blockBytes} B`, {
      sizeBytes: block.length,
    });
    return this.#alone(name, async () => {
      throwIfAborted(options.signal);
      if (this.#residency.has(name)) return true;
      const victims = this.#makeRoom('storage');
      if (victims === undefined || !this.#tryAdd(name)) return false;
      this.#residency.pin(name, 'storage');
      const left = new Set(victims);
      try {
        for (const victim of victims) {
          // Without the signal: they have left the books already.
          await this.#store.delete(this.#key(victim));
          left.delete(victim);
        }
        await this.#store.put(this.#key(name), block, options);
      } catch (error) {
        this.#residency.unpin(name, 'storage');
        this.#residency.drop(name, 'storage');
        for (const victim of left) if (!this.#residency.has(victim)) this.#tryAdd(victim);
        // A put that failed may have been carried out all the same.
        if (left.size === 0) await this.#store.delete(this.#key(name)).catch(() => undefined);
        throw error;
      }
      this.#residency.unpin(name, 'storage');
      this.#admit(name, block);
      return true;
    });
  }

  /**
   * A block's bytes, the caller's own; `undefined` where it is not here or its blob is damaged.
   * @throws VramError what the store throws, but for damage.
   */
  async load(name: string, options: CallOptions = {}): Promise<Uint8Array | undefined> {
    return this.#alone(name, async () => {
      if (!this.#residency.has(name)) return undefined;
      const near = this.#host.get(name);
      if (near !== undefined) {
        this.#residency.touch(name, 'host');
        return new Uint8Array(near);
      }
      this.#residency.touch(name, 'storage');
      this.#residency.pin(name, 'storage');
      let block: Uint8Array | undefined;
      try {
        block = await this.#read(name, options);
      } finally {
        this.#residency.unpin(name, 'storage');
      }
      if (block !== undefined) this.#admit(name, block);
      else {
        this.#drop(name, 'storage', 'explicit');
        await this.#store.delete(this.#key(name)); // without the signal: it has left the books
      }
      return block;
    });
  }

  /** Verifies the bookkeeping; linear. @throws VramError `invariant`. */
  check(): void {
    this.#residency.check();
    for (const name of this.#host.keys()) {
      assertArgument(this.#residency.state(name, 'host') === 'resident', `'${name}' is in memory`);
    }
    const { residentBytes } = this.#residency.usage('host');
    assertArgument(residentBytes === this.#host.size * this.#blockBytes, 'memory is accounted');
  }

  #key(name: string): string {
    // Two levels, because a folder with a million files is slow on some file systems.
    return `${this.#folder}${name.slice(0, 2)}/${name}`;
  }

  async #read(name: string, options: CallOptions): Promise<Uint8Array | undefined> {
    for (let tries = 1; ; tries += 1) {
      try {
        const block = await readBlob(this.#store, this.#key(name), options);
        return block.length === this.#blockBytes ? block : undefined;
      } catch (error) {
        if (isVramError(error, 'corrupt-data') || isVramError(error, 'not-found')) return undefined;
        // Meanwhile another process has put it too, or has deleted it.
        if (!isVramError(error, 'conflict') || tries === MAX_READS) throw error;
      }
    }
  }

  #tryAdd(name: string): boolean {
    const size = { sizeBytes: this.#blockBytes, tier: 'storage', recreatable: true } as const;
    return this.#residency.tryAdd(name, size);
  }

  /** Copies a stored block to memory, where there is room. */
  #admit(name: string, block: Uint8Array): void {
    if (this.#makeRoom('host') === undefined) return;
    const move = this.#residency.prepareMove(name, 'host', 'storage');
    if (move === undefined) return;
    this.#host.set(name, new Uint8Array(block)); // slice() of a Buffer would be a view
    this.#residency.complete(move, 'succeeded');
  }

  /**
   * Drops what must go for one more block. It waits for nothing, so that the room is still there
   * when it returns; blobs of the victims that it names are the caller's to delete.
   */
  #makeRoom(tier: 'host' | 'storage'): readonly string[] | undefined {
    const victims = this.#residency.planRoom(tier, this.#blockBytes)?.map(({ id }) => id);
    for (const name of victims ?? []) this.#drop(name, tier, 'capacity');
    return victims;
  }

  #drop(name: string, tier: 'host' | 'storage', reason: 'capacity' | 'explicit'): void {
    // A copy in memory of a block that leaves the store goes too: the store is what outlives.
    if (this.#residency.state(name, 'host') === 'resident') {
      this.#residency.drop(name, 'host', tier === 'host' ? reason : 'explicit');
      this.#host.delete(name);
    }
    if (tier === 'storage') this.#residency.drop(name, 'storage', reason);
  }

  /** One call at a time per block. */
  async #alone<Result>(name: string, call: () => Promise<Result>): Promise<Result> {
    for (let busy = this.#busy.get(name); busy !== undefined; busy = this.#busy.get(name)) {
      await busy.catch(() => undefined);
    }
    const running = call().finally(() => this.#busy.delete(name));
    this.#busy.set(name, running);
    return running;
  }
}
