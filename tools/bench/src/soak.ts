/**
 * A million simulated requests through the KV cache manager: `npm run soak [-- --requests N]`.
 *
 * The shape is that of the conversation trace published with Mooncake (Qin et al., FAST 2025),
 * drawn again here, not replayed: prompts of log-normal length, 12,000 tokens on average, whose
 * blocks of 512 tokens are shared with earlier requests of the same conversation, over a small set
 * of system prompts. Lengths are scaled by 1/32, so that a block of 16 tokens stands for one of
 * theirs. Popularity of conversations follows Zipf's law.
 *
 * Between requests, at random: sequences decode, fork, drop blocks, are preempted (by recomputing
 * or swapping, and swaps fail one time in ten), prefixes are pinned and unpinned, tiers store, load
 * and spill, and transfers fail. A third of the run has a window group beside the full one.
 * Invariants are verified every so often, because a check is linear in the pool. The hit tokens of
 * every request with one group are compared with what a replica says that knows the cache's events
 * alone; with a window, with what `match` said before.
 */
import { programOptions } from '@vramkit/adapter';
import {
  BlockPool,
  fastHasher,
  KvCacheManager,
  KvSwap,
  KvTiers,
  PrefixReplica,
  SlotMapping,
  type KvGroup,
  type SwapMove,
  type TierTransfer,
} from '@vramkit/block-allocator';
import { seededRandom, type SeededRandom } from '@vramkit/core/testing';

const blockSize = 16;
const blockCount = 2_000;
const conversationCount = 3_000;
const systemPrompts = 8;
const meanPromptTokens = 375;
/** Requests between two checks of every invariant. */
const checkEvery = 2_000;

const totals = { requests: 0, refused: 0, queryTokens: 0, hitTokens: 0, modelTokens: 0 };

/** One machine: a manager with swap space and tiers, and whatever is in flight. */
class Machine {
  readonly manager: KvCacheManager;
  readonly swap: KvSwap;
  readonly tiers: KvTiers;
  readonly replica = new PrefixReplica();
  readonly #random: SeededRandom;
  readonly #step: SlotMapping[];
  readonly #live: number[] = [];
  readonly #away: number[] = [];
  readonly #pins: number[] = [];
  readonly #flights: TierTransfer[] = [];
  /** Tokens that each conversation has had, which its next request repeats. */
  readonly #histories = new Map<number, Uint32Array>();
  readonly #hasOneGroup: boolean;

  constructor(groups: readonly KvGroup[], random: SeededRandom) {
    const pool = new BlockPool({ blockCount, blockSize, rankLifetime: 4 * blockCount });
    this.manager = new KvCacheManager(pool, {
      groups,
      recordEvents: true,
      watermarkBlocks: 8,
      nodeCapacity: 8 * blockCount,
    });
    this.swap = new KvSwap(this.manager, { hostBlocks: 1_000 });
    this.tiers = new KvTiers(this.manager, {
      host: { blocks: 1_500 },
      storage: { blocks: 3_000 },
    });
    this.#random = random;
    this.#step = groups.map(() => new SlotMapping());
    this.#hasOneGroup = groups.length === 1;
  }

  /** One request: a prompt, and something else that happens. */
  request(): void {
    const { manager } = this;
    const tokens = this.#prompt();
    let expected = this.#expect(tokens);
    let sequence = this.#allocate(tokens);
    for (let tries = 0; sequence === undefined && this.#live.length > 0 && tries < 64; tries++) {
      this.#makeRoom();
      // What made room may have changed what is cached.
      expected = this.#expect(tokens);
      sequence = this.#allocate(tokens);
    }
    if (sequence === undefined) {
      totals.refused++;
      return;
    }
    totals.requests++;
    totals.queryTokens += tokens.length;
    totals.hitTokens += manager.hitTokens(sequence);
    totals.modelTokens += expected;
    this.#live.push(sequence);
    this.#happen(tokens);
  }

  /** Verifies every invariant. */
  check(): void {
    this.manager.check();
    this.tiers.check();
  }

  /** Ends everything; every block must be free then. */
  finish(): void {
    const { manager, swap } = this;
    while (this.#flights.length > 0) this.#land();
    for (const sequence of this.#away) swap.discard(sequence);
    for (const sequence of this.#live) manager.free(sequence);
    manager.unpinAll();
    this.check();
    const lost = blockCount - 1 - manager.pool.freeCount;
    if (lost !== 0 || swap.freeCount !== 1_000) throw new Error(`${lost} blocks are lost`);
  }

  /** Tokens that the replica, which knows events alone, says are cached. */
  #expect(tokens: Uint32Array): number {
    this.replica.apply(this.manager.cache.takeEvents());
    if (!this.#hasOneGroup) return this.manager.match(tokens);
    const source = { hasher: fastHasher(), seed: '', blockSize };
    return this.replica.match(tokens.subarray(0, tokens.length - 1), source) * blockSize;
  }

  #prompt(): Uint32Array {
    const random = this.#random;
    // Zipf with exponent 1 over the conversations, by inversion.
    const conversation = Math.floor(conversationCount ** random.uniform());
    const length = Math.ceil(Math.exp(random.normal() * 0.9 - 0.4) * meanPromptTokens);
    const known = this.#histories.get(conversation) ?? this.#system(conversation);
    const isFull = known.length + length > 4096;
    const history = isFull ? this.#system(conversation) : known;
    const fresh = Uint32Array.from({ length: Math.min(length, 2048) }, () => random.uint32());
    const tokens = new Uint32Array(history.length + fresh.length);
    tokens.set(history);
    tokens.set(fresh, history.length);
    this.#histories.set(conversation, tokens);
    return tokens;
  }

  #system(conversation: number): Uint32Array {
    const system = conversation % systemPrompts;
    return Uint32Array.from({ length: 40 + 30 * system }, (_, at) => system * 1000 + at);
  }

  #allocate(tokens: Uint32Array): number | undefined {
    for (const mapping of this.#step) mapping.clear();
    const rank = this.#random.uniform() < 0.1 ? 3 : 1;
    return this.manager.tryAllocate(tokens, this.#step, { rank });
  }

  #pick(list: number[]): number | undefined {
    const index = this.#random.integer(0, Math.max(0, list.length - 1));
    return list.splice(index, 1)[0];
  }

  /** Takes a running sequence's blocks: it ends, is preempted, or is swapped out. */
  #makeRoom(): void {
    const { manager, swap } = this;
    const sequence = this.#pick(this.#live);
    if (sequence === undefined) return;
    const kind = this.#random.uniform();
    const move = kind < 0.2 ? swap.prepareOut(sequence) : undefined;
    if (move !== undefined) {
      if (swap.completeOut(move, this.#outcome())) this.#away.push(sequence);
      else this.#live.push(sequence);
    } else if (kind < 0.4) manager.preempt(sequence);
    else manager.free(sequence);
  }

  #outcome(): 'succeeded' | 'failed' {
    return this.#random.uniform() < 0.9 ? 'succeeded' : 'failed';
  }

  #happen(tokens: Uint32Array): void {
    const { manager } = this;
    const what = this.#random.integer(0, 11);
    const sequence = this.#live[this.#random.integer(0, this.#live.length - 1)];
    if (sequence === undefined) return;
    if (what < 4) this.#decode(sequence);
    else if (what === 4) {
      const fork = manager.tryFork(sequence);
      if (fork !== undefined) this.#live.push(fork.sequence);
    } else if (what === 5) this.#draft(sequence);
    else if (what === 6 && this.#random.uniform() < 0.2) manager.dropBlocks(sequence, 0);
    else if (what === 7) this.#pin(tokens);
    else if (what === 8) this.#launch(tokens);
    else if (what === 9) this.#land();
    else if (what === 10) this.#comeBack();
    else if (this.#live.length > 12) this.#makeRoom();
  }

  #decode(sequence: number): void {
    const count = this.#random.integer(1, 64);
    const tokens = Uint32Array.from({ length: count }, () => this.#random.uint32());
    for (const mapping of this.#step) mapping.clear();
    this.manager.tryAppend(sequence, tokens, this.#step);
  }

  /** Drafts, of which some are accepted. */
  #draft(sequence: number): void {
    const { manager } = this;
    for (const mapping of this.#step) mapping.clear();
    if (!manager.tryReserve(sequence, 5, this.#step)) return;
    const accepted = this.#random.integer(0, 5);
    const start = manager.committedTokens(sequence);
    manager.commit(
      sequence,
      Uint32Array.from({ length: accepted }, () => this.#random.uint32()),
    );
    manager.truncate(sequence, start + accepted);
  }

  #pin(tokens: Uint32Array): void {
    const pin = this.manager.tryPin(tokens.subarray(0, 64));
    if (pin !== undefined) this.#pins.push(pin);
    const old = this.#pins.length > 6 ? this.#pick(this.#pins) : undefined;
    if (old !== undefined) this.manager.unpin(old);
  }

  #launch(tokens: Uint32Array): void {
    const { manager, tiers } = this;
    const kind = this.#random.integer(0, 2);
    const { blocks } = manager.table(this.#live[0] ?? 0);
    const transfer =
      kind === 0
        ? tiers.prepareStore(blocks)
        : kind === 1
          ? tiers.prepareLoad(tokens)
          : tiers.prepareSpill(16);
    if (transfer !== undefined) this.#flights.push(transfer);
    if (this.#flights.length > 8) this.#land();
  }

  /** Ends the oldest transfer; one block in ten fails. */
  #land(): void {
    const transfer = this.#flights.shift();
    if (transfer !== undefined) {
      this.tiers.complete(transfer, () => this.#random.uniform() < 0.9);
    }
  }

  #comeBack(): void {
    const sequence = this.#pick(this.#away);
    if (sequence === undefined) return;
    const move: SwapMove | undefined = this.swap.prepareIn(sequence);
    const outcome = this.#outcome();
    if (move !== undefined) this.swap.completeIn(move, outcome);
    if (move !== undefined && outcome === 'succeeded') this.#live.push(sequence);
    else this.#away.push(sequence);
  }
}

/** Runs `count` requests over machines of each kind. */
export function soak(count: number, log: (line: string) => void): typeof totals {
  const kinds: readonly (readonly KvGroup[])[] = [
    [{ kind: 'full' }],
    [{ kind: 'full' }],
    [{ kind: 'full' }, { kind: 'window', windowTokens: 256, sinkTokens: 4 }],
  ];
  kinds.forEach((groups, index) => {
    const machine = new Machine(groups, seededRandom(index + 1));
    const share = Math.ceil(count / kinds.length);
    for (let request = 1; request <= share; request++) {
      machine.request();
      if (request % checkEvery === 0) machine.check();
      if (request % 50_000 === 0) log(`${request} of ${share}, machine ${index + 1}`);
    }
    machine.finish();
  });
  return totals;
}

if (process.argv[1] === import.meta.filename) {
  const usage = 'usage: npm run soak -- [--requests N]   requests in all (default: 1000000)';
  const options = programOptions(usage, { requests: 1_000_000 });
  const start = Date.now();
  const found = soak(options.requests, console.log);
  const { requests, refused, queryTokens, hitTokens, modelTokens } = found;
  const seconds = (Date.now() - start) / 1000;
  console.log(`${requests} requests (${refused} refused) in ${seconds.toFixed(0)} s`);
  console.log(`hit rate ${(hitTokens / queryTokens).toFixed(4)}, of the events' replica`);
  console.log(`${(modelTokens / queryTokens).toFixed(4)}; no invariant broken, no block lost`);
  if (hitTokens !== modelTokens) throw new Error('the hit rates differ');
}
