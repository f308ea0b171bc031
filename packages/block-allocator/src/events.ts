/**
 * What a prefix cache holds, as a stream of events from which another process rebuilds it.
 *
 * A key names the contents of a block: digest and group ({@link packBlockKey}). `stored` says that
 * a key became available, `removed` that the last block with it is gone; further blocks with the
 * same contents are not reported, so a replica is a plain map. The queue has a limit. Where nobody
 * drains it in time it is dropped and says so by `lost`; the reader then asks for a snapshot.
 */
import { checkInteger, fail } from '@vramkit/core';
import { digestText, packBlockKey, type BlockHasher } from './block-hasher.js';

/** One change of what can be hit. Plain data. */
export type PrefixEvent =
  | {
      readonly kind: 'stored';
      readonly digest: string;
      readonly group: number;
      /** Digest of the block before; that of the hasher's root for the first. */
      readonly parent: string;
      /** Tokens of the block. */
      readonly tokens: readonly number[];
      /** What separates the block from others with equal tokens; '' for nothing. */
      readonly extra: string;
    }
  | { readonly kind: 'removed'; readonly digest: string; readonly group: number }
  | { readonly kind: 'cleared' }
  /** Events before this one are lost; start over from a snapshot. */
  | { readonly kind: 'lost' };

/** Events that nobody has taken yet. */
export class PrefixEvents {
  readonly #limit: number;
  #events: PrefixEvent[] = [];

  /** @param limit Most events that wait. Default: 65,536. */
  constructor(limit = 65_536) {
    this.#limit = checkInteger('limit', limit, 2);
  }

  add(event: PrefixEvent): void {
    if (event.kind === 'cleared') this.#events = [];
    else if (this.#events.length === this.#limit) this.#events = [{ kind: 'lost' }];
    this.#events.push(event);
  }

  /** All events since the last call, oldest first. */
  take(): readonly PrefixEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }
}

/**
 * A replica of a prefix cache's index, kept by its events: answers which prefix a worker holds
 * without asking it, by digests alone.
 */
export class PrefixReplica {
  readonly #entries = new Map<string, Extract<PrefixEvent, { kind: 'stored' }>>();

  /** Names of all contents, sorted. */
  keys(): string[] {
    return [...this.#entries.keys()].sort();
  }

  /**
   * Applies events in order.
   * @throws VramError `invariant` for a removal of what was never stored, `corrupt-data` for
   *   `lost`: make a new replica from a snapshot.
   */
  apply(events: Iterable<PrefixEvent>): void {
    for (const event of events) {
      if (event.kind === 'lost') fail('corrupt-data', 'events were lost; start from a snapshot');
      if (event.kind === 'cleared') this.#entries.clear();
      else if (event.kind === 'stored') {
        this.#entries.set(packBlockKey(event.digest, event.group), event);
      } else if (!this.#entries.delete(packBlockKey(event.digest, event.group))) {
        fail('invariant', `${event.digest} of group ${event.group} is removed and was not stored`);
      }
    }
  }

  /**
   * Leading full blocks of `tokens` that the cache holds in a group.
   * @param source Hasher and seed of the cache, and its block size.
   */
  match(
    tokens: Uint32Array,
    source: { readonly hasher: BlockHasher; readonly seed: string; readonly blockSize: number },
    group = 0,
  ): number {
    const { hasher, seed, blockSize } = source;
    const digest = new Int32Array(hasher.words);
    const parent = new Int32Array(hasher.words);
    hasher.root(seed, parent);
    let count = 0;
    while ((count + 1) * blockSize <= tokens.length) {
      hasher.hash(parent, 0, tokens, count * blockSize, blockSize, '', digest);
      if (!this.#entries.has(packBlockKey(digestText(digest, 0, hasher.words), group))) break;
      parent.set(digest);
      count++;
    }
    return count;
  }
}
