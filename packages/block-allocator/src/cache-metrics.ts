/**
 * Hit rates that mean something: hit tokens over asked tokens, of the last requests and of all.
 *
 * A request that comes back after its preemption finds the blocks that it computed itself. That is
 * no hit: the work was done twice or saved once, never spared. Such requests are counted apart.
 */
import { checkInteger } from '@vramkit/core';
import { intAt } from './index-array.js';

/** Counts since the manager was made; plain data. */
export interface CacheMetrics {
  /** Requests that asked the cache, without those that came back. */
  readonly requests: number;
  /** Tokens that they asked for. */
  readonly queryTokens: number;
  /** Tokens of these that were cached. */
  readonly hitTokens: number;
  /** `hitTokens / queryTokens` of the last requests; 0 before the first. */
  readonly recentHitRate: number;
  /** Sequences preempted. */
  readonly preemptions: number;
  /** Requests that came back after their preemption. */
  readonly resumed: number;
  /** Tokens of those that were still cached. */
  readonly resumedHitTokens: number;
  /** Cached blocks handed out for something else. */
  readonly evictedBlocks: number;
  /** Blocks that can be hit. */
  readonly cachedBlocks: number;
  /** Blocks in use, as a fraction of all. */
  readonly usage: number;
}

/** Counts requests, the last ones in a ring. */
export class RequestCounter {
  /** Tokens asked and hit per request. */
  readonly #ring: Int32Array;
  readonly #window: number;
  #recentQuery = 0;
  #recentHit = 0;
  requests = 0;
  queryTokens = 0;
  hitTokens = 0;
  resumed = 0;
  resumedHitTokens = 0;
  preemptions = 0;

  /** @param window Requests that count as recent; 0 records none at all. */
  constructor(window: number) {
    this.#window = checkInteger('metricsWindow', window, 0, 1_000_000);
    this.#ring = new Int32Array(this.#window * 2);
  }

  /** `hitTokens / queryTokens` of the recent requests. */
  get recentHitRate(): number {
    return this.#recentQuery === 0 ? 0 : this.#recentHit / this.#recentQuery;
  }

  /** Records a request. */
  add(queryTokens: number, hitTokens: number, isResumed: boolean): void {
    if (this.#window === 0) return;
    if (isResumed) {
      this.resumed++;
      this.resumedHitTokens += hitTokens;
      return;
    }
    const entry = (this.requests % this.#window) * 2;
    this.#recentQuery += queryTokens - intAt(this.#ring, entry);
    this.#recentHit += hitTokens - intAt(this.#ring, entry + 1);
    this.#ring[entry] = queryTokens;
    this.#ring[entry + 1] = hitTokens;
    this.requests++;
    this.queryTokens += queryTokens;
    this.hitTokens += hitTokens;
  }
}
