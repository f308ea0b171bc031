/**
 * Host and storage tiers of the prefix cache: contents that outlive their device block.
 *
 * A content is a node in a group. Core's `Residency` knows in which tier each content is, moving or
 * to be evicted; this class gives contents slots in their tiers and ties moves to device blocks.
 * Every move is a pair: `prepare…` names what to copy, reserves the room and pins what is read;
 * `complete…` ends it, block by block if need be, and a failed block leaves no trace.
 *
 * ```
 *   device block ──prepareStore──▶ host slot ──prepareSpill──▶ storage slot
 *        ▲                             │                            │
 *        └────────── prepareLoad ──────┴────────────────────────────┘
 * ```
 *
 * Store: blocks that are cached; the pool cannot hand them out before the move ends. Load: what of
 * a prompt's prefix is missing on the device and is to be had, into fresh blocks that can be hit
 * once the move has succeeded. A tier keeps the node of its contents alive, so give the cache a
 * `nodeCapacity` for all tiers together.
 *
 * The device is part of the `Residency` while a move reads or writes it, and not otherwise: what is
 * on the device is the prefix cache's to know.
 */
import {
  assertArgument,
  assertInvariant,
  checkInteger,
  Residency,
  type Move,
  type ReplacementPolicy,
} from '@vramkit/core';
import { BlockPool } from './block-pool.js';
import { extraKey, NO_KEYS, type ContentKeys } from './content-keys.js';
import { at, type IndexList } from './index-array.js';
import { InsertionOrder } from './insertion-order.js';
import type { KvCacheManager } from './kv-cache-manager.js';
import { ROOT_NODE } from './prefix-nodes.js';

/** A tier behind the device. */
export type FarTier = 'host' | 'storage';

/** Room of one tier. */
export interface FarTierOptions {
  /** Blocks that it has room for. */
  readonly blocks: number;
  /** Who goes first. Default: least recently used. */
  readonly policy?: ReplacementPolicy<number>;
}

/** Options of {@link KvTiers}. */
export interface KvTiersOptions {
  /** Room in host memory. */
  readonly host: FarTierOptions;
  /** Default: no storage. */
  readonly storage?: FarTierOptions;
}

/** One block of a {@link TierTransfer}. Plain data. */
export interface TierMove {
  /** What is moved: a node in a group, by number. */
  readonly content: number;
  readonly from: 'device' | FarTier;
  readonly to: 'device' | FarTier;
  /** Block id or slot to read. */
  readonly source: number;
  /** Block id or slot to write. */
  readonly target: number;
}

/** Blocks to copy; ended by {@link KvTiers.complete}. */
export interface TierTransfer {
  readonly moves: readonly TierMove[];
}

type Tier = 'device' | FarTier;

interface InFlight {
  readonly moves: readonly Move<number, Tier>[];
  /** Device blocks that must stay until the transfer ends. */
  readonly held: Uint32Array;
}

/** Contents of the far tiers; see the notes of this module. */
export class KvTiers {
  readonly #manager: KvCacheManager;
  readonly #residency: Residency<number, Tier>;
  /** Slots of the tiers, numbered from 1 as blocks are. */
  readonly #slots: Readonly<Record<FarTier, BlockPool>>;
  readonly #slotOf: Readonly<Record<FarTier, Map<number, number>>>;
  readonly #hasStorage: boolean;
  readonly #inFlight = new Map<TierTransfer, InFlight>();

  /** @throws VramError `invalid-argument` where a tier has no room at all. */
  constructor(manager: KvCacheManager, options: KvTiersOptions) {
    const { host, storage } = options;
    this.#manager = manager;
    const tier = (name: FarTier, { blocks, policy }: FarTierOptions) => ({
      name,
      budgetBytes: blocks,
      policy: policy ?? new InsertionOrder<number>(),
    });
    const device = {
      name: 'device' as const,
      budgetBytes: Infinity,
      policy: new InsertionOrder<number>(),
    };
    const tiers = [device, tier('host', host)];
    this.#residency = new Residency<number, Tier>({
      // Sizes are counted in blocks: the unit of a budget is the caller's.
      tiers: storage === undefined ? tiers : [...tiers, tier('storage', storage)],
    });
    this.#hasStorage = storage !== undefined;
    const slots = (blocks: number): BlockPool =>
      new BlockPool({ blockCount: blocks + 1, blockSize: 1 });
    this.#slots = { host: slots(host.blocks), storage: slots(storage?.blocks ?? 1) };
    this.#slotOf = { host: new Map(), storage: new Map() };
  }

  /** Contents that can be read from a tier. */
  count(tier: FarTier): number {
    return this.#residency.usage(tier).residentCount;
  }

  /** The number of a node in a group. */
  contentOf(node: number, group = 0): number {
    return node * this.#manager.sequences.length + group;
  }

  /** Whether a content can be read from a tier. */
  has(content: number, tier: FarTier): boolean {
    if (tier === 'storage' && !this.#hasStorage) return false;
    return this.#residency.state(content, tier) === 'resident';
  }

  /**
   * Leading tokens of a prompt that are on the device or can be loaded; the run ends at the first
   * block that is neither. Contents that are read are touched. O(tokens).
   */
  lookup(tokens: Uint32Array, keys: ContentKeys = NO_KEYS): number {
    return this.#manager.matchWith(tokens, keys, this.#isFar).tokenCount;
  }

  /**
   * Says that the leading blocks of a prompt are in a tier although no move brought them there:
   * another process stored them, or this one before a restart. For managers of one group.
   * @returns Contents of these blocks, in order; fewer than `blockCount` where the tier or the
   *   cache has no room for more. O(tokens).
   * @throws VramError `invalid-argument` where the prompt has not so many full blocks, or the
   *   manager has several groups.
   */
  admit(
    tokens: Uint32Array,
    blockCount: number,
    tier: FarTier,
    keys: ContentKeys = NO_KEYS,
  ): number[] {
    const { cache, sequences } = this.#manager;
    const { blockSize } = cache.nodes;
    assertArgument(sequences.length === 1, 'contents of several groups cannot be admitted');
    checkInteger('blockCount', blockCount, 0, Math.floor(tokens.length / blockSize));
    const admitted = new Set<number>();
    let parent = ROOT_NODE;
    for (let start = 0; start < blockCount * blockSize; start += blockSize) {
      parent = cache.extend(parent, tokens, start, extraKey(keys, start, start + blockSize));
      if (parent === 0) break;
      const content = this.contentOf(parent);
      const isNew = this.#residency.state(content, tier) === 'absent';
      // The slot keeps the use of the node that came with it.
      const isKept = isNew && this.#tryArrive(content, tier, (id) => !admitted.has(id));
      if (!isKept) cache.release(parent);
      if (isNew && !isKept) break;
      admitted.add(content);
    }
    return [...admitted];
  }

  /** Gives a content that nothing moves a slot in a tier, where there is room. */
  #tryArrive(content: number, tier: FarTier, mayEvict: (id: number) => boolean): boolean {
    if (!this.#makeRoom(tier, 1, mayEvict)) return false;
    if (this.#residency.has(content)) this.#enter(content, tier);
    else this.#residency.tryAdd(content, { sizeBytes: 1, tier, recreatable: true });
    const slot = this.#slots[tier].tryAllocate(1)?.[0];
    assertInvariant(slot !== undefined, `room in ${tier} was made`);
    this.#slotOf[tier].set(content, slot);
    return true;
  }

  /**
   * Begins to copy cached blocks into a tier. Blocks that are not cached, or there already, are
   * left out.
   * @returns The moves, none where nothing is left; `undefined` where the tier cannot make room
   *   for all of them. Nothing has changed then.
   * @throws VramError `invalid-argument` for an id that is no block.
   */
  prepareStore(blocks: IndexList, to: FarTier = 'host'): TierTransfer | undefined {
    const { cache, pool } = this.#manager;
    const chosen = new Map<number, number>();
    for (let index = 0; index < blocks.length; index++) {
      const block = at(blocks, index);
      pool.rankOf(block); // rejects what is no block
      const node = cache.nodeOf(block);
      if (node === 0) continue;
      const content = this.contentOf(node, cache.groupOf(block));
      const isFree = this.#residency.state(content, to) === 'absent';
      if (isFree && this.#residency.state(content, 'device') === 'absent') {
        chosen.set(content, block);
      }
    }
    if (!this.#makeRoom(to, chosen.size)) return undefined;
    const moves = [...chosen].map(([content, block]): [TierMove, Move<number, Tier>] => {
      pool.hold(block);
      cache.retain(this.#nodeOf(content));
      if (this.#residency.has(content)) this.#enter(content, 'device');
      else this.#residency.tryAdd(content, { sizeBytes: 1, tier: 'device', recreatable: true });
      return this.#move(content, 'device', to, block);
    });
    return this.#begin(moves);
  }

  /**
   * Begins to load what of a prompt's prefix is missing on the device, into fresh blocks.
   * @returns The moves, none where nothing is missing or to be had; `undefined` where the pool has
   *   too few free blocks. Nothing has changed then.
   */
  prepareLoad(tokens: Uint32Array, keys: ContentKeys = NO_KEYS): TierTransfer | undefined {
    const { pool } = this.#manager;
    const { missing, present } = this.#manager.matchWith(tokens, keys, this.#isFar);
    const free = present.filter((id) => pool.referenceCount(id) === 0).length;
    if (missing.length + free > pool.freeCount) return undefined;
    // The part of the prefix that is here must not make room for the part that comes.
    for (const id of present) pool.hold(id);
    const moves = missing.map(({ node, group }): [TierMove, Move<number, Tier>] => {
      const content = this.contentOf(node, group);
      this.#manager.cache.retain(node);
      return this.#load(content);
    });
    return this.#begin(moves, present);
  }

  /**
   * Begins to copy `count` contents from host to storage: those that the host would lose next and
   * storage has not.
   * @returns The moves; `undefined` where storage cannot make room. Nothing has changed then.
   */
  prepareSpill(count: number): TierTransfer | undefined {
    const isNew = (content: number): boolean =>
      this.#residency.state(content, 'storage') === 'absent';
    const { residentCount, budgetBytes, incomingBytes } = this.#residency.usage('host');
    const free = budgetBytes - residentCount - incomingBytes;
    const victims = this.#residency.planRoom('host', free + count, isNew) ?? [];
    if (!this.#makeRoom('storage', victims.length)) return undefined;
    return this.#begin(
      victims.map(({ id: content }): [TierMove, Move<number, Tier>] => {
        this.#manager.cache.retain(this.#nodeOf(content));
        return this.#move(content, 'host', 'storage', this.#slot('host', content));
      }),
    );
  }

  /**
   * Ends a transfer. Loaded blocks can be hit; contents that arrived can be read; what failed is as
   * it was.
   * @param outcome Of all blocks, or whether each one arrived, in the order of the moves.
   * @throws VramError `invalid-argument` for a transfer that is not in flight.
   */
  complete(
    transfer: TierTransfer,
    outcome: 'succeeded' | 'failed' | ((move: TierMove, index: number) => boolean),
  ): void {
    const flight = this.#inFlight.get(transfer);
    assertArgument(flight !== undefined, 'no such transfer is in flight');
    // Before anything changes: what a function throws leaves the transfer in flight.
    const arrived = transfer.moves.map((each, index) =>
      typeof outcome === 'function' ? outcome(each, index) : outcome === 'succeeded',
    );
    this.#inFlight.delete(transfer);
    transfer.moves.forEach((each, index) => {
      const succeeded = arrived[index] === true;
      const move = flight.moves[index];
      assertInvariant(move !== undefined, 'a move of the transfer is not in flight');
      this.#residency.complete(move, succeeded ? 'succeeded' : 'failed');
      this.#finish(each, succeeded);
    });
    this.#manager.pool.free(flight.held);
  }

  /** Drops a content from a tier where nothing reads or writes it. */
  drop(content: number, tier: FarTier): void {
    if (!this.has(content, tier)) return;
    this.#forget(content, tier, 'explicit');
  }

  /** Verifies residency, slots and their agreement. @throws VramError `invariant`. */
  check(): void {
    this.#residency.check();
    for (const tier of ['host', 'storage'] as const) {
      this.#slots[tier].check();
      const used = this.#slots[tier].blockCount - 1 - this.#slots[tier].freeCount;
      assertInvariant(used === this.#slotOf[tier].size, `${used} slots of ${tier} are in use`);
    }
  }

  /** Makes room by dropping what a tier's policy names; all or nothing. */
  #makeRoom(tier: FarTier, count: number, mayEvict?: (id: number) => boolean): boolean {
    const victims = this.#residency.planRoom(tier, count, mayEvict);
    for (const { id } of victims ?? []) this.#forget(id, tier, 'capacity');
    return victims !== undefined;
  }

  #forget(content: number, tier: FarTier, reason: 'capacity' | 'explicit'): void {
    this.#residency.drop(content, tier, reason);
    this.#freeSlot(content, tier);
  }

  #freeSlot(content: number, tier: FarTier): void {
    this.#slots[tier].free([this.#slot(tier, content)]);
    this.#slotOf[tier].delete(content);
    this.#manager.cache.release(this.#nodeOf(content));
  }

  /** Says that a content which is somewhere is in a tier with room too. */
  #enter(content: number, tier: Tier): void {
    const move = this.#residency.prepareMove(content, tier);
    assertInvariant(move !== undefined, `${tier} has room`);
    this.#residency.complete(move, 'succeeded');
  }

  /** A move into a far tier that has room; the content's node has been retained for it. */
  #move(content: number, from: Tier, to: FarTier, source: number): [TierMove, Move<number, Tier>] {
    const move = this.#residency.prepareMove(content, to, from);
    const slot = this.#slots[to].tryAllocate(1)?.[0];
    assertInvariant(move !== undefined && slot !== undefined, `room in ${to} was made`);
    this.#slotOf[to].set(content, slot);
    return [{ content, from, to, source, target: slot }, move];
  }

  #load(content: number): [TierMove, Move<number, Tier>] {
    const from = this.has(content, 'host') ? 'host' : 'storage';
    const move = this.#residency.prepareMove(content, 'device', from);
    const block = this.#manager.pool.tryAllocate(1)?.[0];
    assertInvariant(move !== undefined && block !== undefined, 'blocks were free a moment ago');
    this.#residency.touch(content, from);
    return [
      { content, from, to: 'device', source: this.#slot(from, content), target: block },
      move,
    ];
  }

  #begin(
    pairs: readonly [TierMove, Move<number, Tier>][],
    held: Uint32Array = new Uint32Array(),
  ): TierTransfer {
    const transfer = { moves: pairs.map(([each]) => each) };
    this.#inFlight.set(transfer, { moves: pairs.map(([, move]) => move), held });
    return transfer;
  }

  /** Gives back what a move held, once the residency knows how it ended. */
  #finish({ content, from, to, source, target }: TierMove, succeeded: boolean): void {
    const { cache, pool } = this.#manager;
    if (to === 'device') {
      if (succeeded) {
        cache.attach(target, this.#nodeOf(content), content % this.#manager.sequences.length);
        this.#residency.drop(content, 'device');
      }
      pool.free([target]);
      cache.release(this.#nodeOf(content));
      return;
    }
    if (!succeeded) this.#freeSlot(content, to);
    if (from !== 'device') return;
    // Where the store failed and no tier has the content, this forgets it.
    this.#residency.drop(content, 'device');
    pool.free([source]);
  }

  #slot(tier: FarTier, content: number): number {
    const slot = this.#slotOf[tier].get(content);
    assertInvariant(slot !== undefined, `content ${content} has no slot in ${tier}`);
    return slot;
  }

  #nodeOf(content: number): number {
    return Math.floor(content / this.#manager.sequences.length);
  }

  /** Whether a content can be loaded now: it is far, and not on its way already. */
  readonly #isFar = (node: number, group: number): boolean => {
    const content = this.contentOf(node, group);
    const isThere = this.has(content, 'host') || this.has(content, 'storage');
    return isThere && this.#residency.state(content, 'device') === 'absent';
  };
}
