/**
 * Experts under a byte budget: the ones in use are on the device, the others are read when a router
 * asks for them.
 *
 * Mental model: arenas of fixed slots (expert-arena.ts), one for each matrix of an expert, all with
 * the same expert in the same width; beside them for each width a `Residency` of core that knows
 * what is resident and whose replacement policy names victims. The cache carries out what they say:
 * it reads an expert's words, uploads them, publishes the slot.
 *
 * A step may need more experts than there are slots. {@link ExpertCache.rounds} brings them in
 * rounds: after each, the caller records and submits the products, which compute the rows of
 * resident experts and leave the others alone. Products that were submitted see the experts they
 * were recorded with, because the queue keeps order; so a cached model computes what a resident
 * one does.
 *
 * On a miss, an expert that the router gives little weight may come as a copy of few bits instead
 * (`lowBit`): fewer bytes, another result; {@link ExpertCacheStats} counts it. It is replaced by
 * the full one when it is asked for with more weight.
 *
 * Sources: HOBBIT (Tang et al., 2024) for low-bit copies on a miss; DynaExq (2025) for slots of
 * fixed size behind stable handles.
 */
import {
  assertArgument,
  assertInvariant,
  checkInteger,
  Residency,
  throwIfAborted,
  type ReplacementPolicy,
  type Uploader,
  type VramDevice,
} from '@vramkit/core';
import { createExpertArena, type ExpertArena, type ExpertWidth } from './expert-arena.js';
import type { MatrixRows } from './matrix.js';

/** Options of {@link createExpertCache}. */
export interface ExpertCacheOptions {
  /** Name in errors, traces and memory reports. */
  readonly label: string;
  /** The width of each expert, as an index into `widths`. */
  readonly widthOf: readonly number[];
  /** The matrices of an expert, in the order in which `read` gives them. */
  readonly matrices: readonly { readonly rowsPerExpert: number; readonly columns: number }[];
  /** Slots by width; `planExpertSlots` finds their numbers for a budget. */
  readonly widths: readonly ExpertWidth[];
  /** Makes a replacement policy; called once for each width. */
  readonly policy: () => ReplacementPolicy<number>;
  /** Reads the rows of all matrices of an expert at a width. */
  readonly read: (
    expert: number,
    width: number,
    options: { readonly signal?: AbortSignal },
  ) => Promise<readonly MatrixRows[]>;
  /**
   * The width to bring an expert in on a miss where its weight is below `below`. Experts that take
   * no more bytes at their own width come at that.
   */
  readonly lowBit?: { readonly width: number; readonly below: number };
}

/** An expert that a step needs. */
export interface ExpertRequest {
  readonly expert: number;
  /** The router's weight, in [0, 1]; of several, the largest counts. Default: 1. */
  readonly weight?: number;
}

/** Counts since the cache was made; plain data. */
export interface ExpertCacheStats {
  /** Requests of a step that found their expert, distinct experts of a step counted once. */
  readonly hits: number;
  /** Requests that did not. */
  readonly misses: number;
  /** Requests that were answered by a low-bit copy, hits and misses. */
  readonly lowBit: number;
  /** Experts brought in ahead of a request. */
  readonly prefetched: number;
  /** Those of them that a step asked for before they had to go. */
  readonly prefetchHits: number;
  readonly evictions: number;
  /** Bytes uploaded. */
  readonly loadedBytes: number;
}

/** Options of calls that read. */
export interface ExpertReadOptions {
  /** Stops between experts. */
  readonly signal?: AbortSignal;
}

type Pool = Residency<number, 'device' | 'source'>;

/** Says nothing and drops nothing: the source keeps every expert. */
const keepsAll: () => ReplacementPolicy<number> = () => ({
  inserted: () => undefined,
  touched: () => undefined,
  removed: () => undefined,
  chooseVictim: () => undefined,
});

/** See the head of this file. */
export class ExpertCache {
  /** One for each matrix of an expert; multiply with these. */
  readonly arenas: readonly ExpertArena[];
  readonly #options: ExpertCacheOptions;
  readonly #uploader: Uploader;
  readonly #pools: readonly Pool[];
  readonly #stats = {
    hits: 0,
    misses: 0,
    lowBit: 0,
    prefetched: 0,
    prefetchHits: 0,
    evictions: 0,
    loadedBytes: 0,
  };
  /** Brought in ahead and not asked for since. */
  readonly #ahead = new Set<number>();
  #busy: Promise<void> = Promise.resolve();

  /** Use {@link createExpertCache}. @internal */
  constructor(uploader: Uploader, arenas: readonly ExpertArena[], options: ExpertCacheOptions) {
    this.arenas = arenas;
    this.#uploader = uploader;
    this.#options = options;
    const { widths, widthOf, policy } = options;
    this.#pools = widths.map(({ slots }, width) => {
      const sizeBytes = this.slotBytes(width);
      const pool: Pool = new Residency({
        tiers: [
          { name: 'device', budgetBytes: slots * sizeBytes, policy: policy() },
          { name: 'source', budgetBytes: Infinity, policy: keepsAll() },
        ],
      });
      widthOf.forEach((_, expert) => pool.tryAdd(expert, { sizeBytes, tier: 'source' }));
      return pool;
    });
  }

  /** Experts, resident or not. */
  get experts(): number {
    return this.#options.widthOf.length;
  }

  /** Bytes of one expert at a width. */
  slotBytes(width: number): number {
    return this.arenas.reduce((sum, arena) => sum + arena.slotBytes(width), 0);
  }

  /** A snapshot. */
  stats(): ExpertCacheStats {
    return { ...this.#stats };
  }

  /** The width at which an expert is resident, or `undefined` where it is not. */
  residentWidth(expert: number): number | undefined {
    return this.arenas[0]?.place(expert)?.width;
  }

  /**
   * Brings the experts of a step, as many as fit at a time; yields the experts of each round. The
   * caller submits its products before it asks for the next. Other calls wait until it ends.
   * @throws VramError `invalid-argument` for an unknown expert; `aborted`; what `read` throws: the
   * expert is then not resident, and those that made room for it are gone.
   */
  async *rounds(
    requests: readonly ExpertRequest[],
    options: ExpertReadOptions = {},
  ): AsyncGenerator<readonly number[], void, void> {
    const weights = new Map<number, number>();
    for (const { expert, weight = 1 } of requests) {
      checkInteger('expert', expert, 0, this.#options.widthOf.length - 1);
      weights.set(expert, Math.max(weight, weights.get(expert) ?? 0));
    }
    const release = await this.#take();
    try {
      let left = [...weights];
      for (const [expert, weight] of left) this.#count(expert, weight);
      while (left.length > 0) {
        const round = new Set<number>();
        for (const [expert, weight] of left) if (this.#serves(expert, weight)) round.add(expert);
        for (const expert of round) this.#touch(expert);
        for (const [expert, weight] of left) {
          if (round.has(expert)) continue;
          const width = this.#widthFor(expert, weight);
          if (await this.#bring(expert, width, (id) => !round.has(id), options)) round.add(expert);
        }
        assertInvariant(round.size > 0, 'no expert of a step fits');
        yield [...round];
        left = left.filter(([expert]) => !round.has(expert));
      }
    } finally {
      release();
    }
  }

  /**
   * Brings the `count` experts of the highest scores at their own widths, such as a router's scores
   * for a token before; they do not displace each other.
   * @param options `margin`: an expert displaces only those whose score is lower by more than that,
   * so that scores that are about alike move nothing to and fro. Default: any but the `count`.
   * @returns how many were brought.
   * @throws VramError as {@link ExpertCache.rounds}.
   */
  async prefetch(
    scores: ArrayLike<number>,
    count: number,
    options: ExpertReadOptions & { readonly margin?: number } = {},
  ): Promise<number> {
    const { widthOf } = this.#options;
    const { margin = -Infinity } = options;
    assertArgument(scores.length === widthOf.length, `${scores.length} scores`, {
      scores: scores.length,
      experts: widthOf.length,
    });
    const score = (expert: number): number => scores[expert] ?? 0;
    const order = widthOf.map((_, expert) => expert);
    order.sort((a, b) => score(b) - score(a) || a - b);
    const wanted = new Set(order.slice(0, checkInteger('count', count)));
    const release = await this.#take();
    let brought = 0;
    try {
      for (const expert of wanted) {
        if (this.residentWidth(expert) !== undefined) continue;
        const mayGo = (id: number): boolean =>
          !wanted.has(id) && score(expert) - score(id) > margin;
        if (!(await this.#bring(expert, widthOf[expert] ?? 0, mayGo, options))) continue;
        this.#ahead.add(expert);
        brought += 1;
      }
      return brought;
    } finally {
      this.#stats.prefetched += brought;
      release();
    }
  }

  /** Verifies the invariants. @throws VramError `invariant`. */
  check(): void {
    for (const arena of this.arenas) arena.check();
    this.#pools.forEach((pool, width) => {
      pool.check();
      this.#options.widthOf.forEach((_, expert) => {
        const resident = pool.state(expert, 'device') === 'resident';
        for (const arena of this.arenas) {
          const agrees = (arena.place(expert)?.width === width) === resident;
          assertInvariant(agrees, `arenas and residency differ on expert ${expert}`);
        }
      });
    });
  }

  /** Gives the memory back; idempotent. */
  dispose(): void {
    for (const arena of this.arenas) arena.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  /** Waits for the call before to end; the result ends this one. */
  async #take(): Promise<() => void> {
    const before = this.#busy;
    let release = (): void => undefined;
    this.#busy = new Promise((done) => (release = done));
    await before;
    return release;
  }

  #widthFor(expert: number, weight: number): number {
    const { lowBit, widthOf } = this.#options;
    const own = widthOf[expert] ?? 0;
    if (lowBit === undefined || weight >= lowBit.below) return own;
    return this.slotBytes(lowBit.width) < this.slotBytes(own) ? lowBit.width : own;
  }

  /** Whether what is resident will do: any copy for little weight, else the expert's own width. */
  #serves(expert: number, weight: number): boolean {
    const width = this.residentWidth(expert);
    const own = this.#options.widthOf[expert];
    return width !== undefined && (width === own || width === this.#widthFor(expert, weight));
  }

  #count(expert: number, weight: number): void {
    const serves = this.#serves(expert, weight);
    const width = serves ? this.residentWidth(expert) : this.#widthFor(expert, weight);
    this.#stats[serves ? 'hits' : 'misses'] += 1;
    if (width !== this.#options.widthOf[expert]) this.#stats.lowBit += 1;
    if (this.#ahead.delete(expert) && serves) this.#stats.prefetchHits += 1;
  }

  #touch(expert: number): void {
    const width = this.residentWidth(expert);
    if (width !== undefined) this.#pools[width]?.touch(expert, 'device');
  }

  /** Makes an expert resident at a width; false where the slots are all in use. */
  async #bring(
    expert: number,
    width: number,
    mayGo: (expert: number) => boolean,
    options: ExpertReadOptions,
  ): Promise<boolean> {
    throwIfAborted(options.signal);
    const pool = this.#pools[width];
    assertInvariant(pool !== undefined, `no width ${width}`);
    const sizeBytes = this.slotBytes(width);
    const victims = pool.planRoom('device', sizeBytes, mayGo);
    if (victims === undefined) return false;
    for (const { id } of victims) {
      pool.drop(id, 'device', 'capacity');
      for (const arena of this.arenas) arena.remove(id);
      this.#ahead.delete(id);
      this.#stats.evictions += 1;
    }
    const move = pool.prepareMove(expert, 'device');
    assertInvariant(move !== undefined, 'there is no room after all');
    try {
      const rows = await this.#options.read(expert, width, options);
      for (const [index, arena] of this.arenas.entries()) {
        const own = rows[index];
        assertArgument(own !== undefined, `${rows.length} matrices of expert ${expert}`);
        const stored = await arena.tryStore(this.#uploader, expert, { width, rows: own });
        assertInvariant(stored, `no free slot for expert ${expert}`);
      }
    } catch (error) {
      pool.complete(move, 'failed');
      for (const arena of this.arenas) arena.remove(expert);
      this.#forget(expert);
      throw error;
    }
    this.#forget(expert);
    pool.complete(move, 'succeeded');
    this.#stats.loadedBytes += sizeBytes;
    return true;
  }

  /** Copies at other widths, which the arenas gave up. */
  #forget(expert: number): void {
    for (const pool of this.#pools) {
      if (pool.state(expert, 'device') === 'resident') pool.drop(expert, 'device');
    }
  }
}

/**
 * Allocates a cache with no expert resident; the caller disposes it, and keeps `uploader` for as
 * long. Memory is taken completely or not at all.
 * @throws VramError as `createExpertArena`; `invalid-argument` for a width that does not exist.
 */
export function createExpertCache(
  device: VramDevice,
  uploader: Uploader,
  options: ExpertCacheOptions,
): ExpertCache {
  const { label, widthOf, widths, matrices, lowBit } = options;
  for (const width of [...widthOf, lowBit?.width ?? 0]) {
    checkInteger('width', width, 0, widths.length - 1);
  }
  const arenas: ExpertArena[] = [];
  try {
    for (const [index, sizes] of matrices.entries()) {
      const name = `${label} ${index}`;
      arenas.push(
        createExpertArena(device, { ...sizes, label: name, experts: widthOf.length, widths }),
      );
    }
    return new ExpertCache(uploader, arenas, options);
  } catch (error) {
    for (const arena of arenas) arena.dispose();
    throw error;
  }
}
