/**
 * Continuous batching: which requests take part in the next step, and where their tokens go.
 *
 * A request is a list of tokens, of which the leading ones are in the cache. A step computes the
 * next ones: a single one where it decodes, a chunk where it prefills, and all of them again from
 * the first block that is not cached after a preemption. There is one rule for all three: compute
 * what is missing, as far as the step has room. A request that ends a step with nothing missing
 * gets a token.
 *
 * ```
 *   waiting ──(blocks free, the one before has its prompt)──▶ running ──▶ finished
 *      ▲                                                        │
 *      └───────────────── preempted: the youngest ◀─(no block)──┘
 * ```
 *
 * Older requests go first and are never preempted for younger ones, so each makes progress. A
 * request is admitted only when the ones before it have their prompts in the cache or in this very
 * step; so a prefix that many share is computed once, by the first.
 *
 * Pure: no GPU, no clock. Invariants: a running request has a sequence, a waiting one has none;
 * rows of a step are the parts' tokens in order; parts with one token come before the others.
 */
import { checkInteger, fail, VramError } from '@vramkit/core';
import { SlotMapping, type KvCacheManager } from '@vramkit/block-allocator';

/** What the scheduler knows of a request. */
export interface Schedulable {
  /** All tokens known: the prompt and what was generated. Grows by one after each of its steps. */
  readonly tokens: Uint32Array;
  /** Separates its cached blocks from those of other namespaces. */
  readonly namespace: string;
}

/** A request's part of a step. */
export interface ScheduledPart<Request> {
  readonly request: Request;
  /** Handle at the manager. */
  readonly sequence: number;
  /** Tokens cached before: index of the first token computed. */
  readonly contextLength: number;
  /** Tokens to compute. */
  readonly count: number;
  /** Whether nothing is missing after the step, so that its last row gives the next token. */
  readonly isComplete: boolean;
}

/** A step to run; valid until the next one is planned. */
export interface StepPlan<Request> {
  readonly parts: readonly ScheduledPart<Request>[];
  /** Slots and positions of all rows, and the copies that come first. */
  readonly mapping: SlotMapping;
}

/** Options of {@link Scheduler}. */
export interface SchedulerOptions {
  /** Most rows of a step, tokens; at least `maxSequences`. */
  readonly maxTokens: number;
  /** Most requests that run at once. */
  readonly maxSequences: number;
  /** Most requests that wait. */
  readonly maxWaiting: number;
}

interface Running<Request> {
  readonly request: Request;
  readonly sequence: number;
}

/** Plans steps over one cache manager; see the notes of this module. */
export class Scheduler<Request extends Schedulable> {
  readonly #manager: KvCacheManager;
  readonly #options: SchedulerOptions;
  readonly #waiting: { readonly request: Request; readonly isResumed: boolean }[] = [];
  /** Oldest first. */
  #running: Running<Request>[] = [];
  readonly #mapping = new SlotMapping();

  /** @throws VramError `invalid-argument` where a step has not a row for each sequence. */
  constructor(manager: KvCacheManager, options: SchedulerOptions) {
    checkInteger('maxSequences', options.maxSequences, 1);
    checkInteger('maxTokens', options.maxTokens, options.maxSequences);
    checkInteger('maxWaiting', options.maxWaiting, 1);
    this.#manager = manager;
    this.#options = options;
  }

  /** Requests that have not run yet, or were preempted. */
  get waitingCount(): number {
    return this.#waiting.length;
  }

  /** Requests that hold blocks. */
  get runningCount(): number {
    return this.#running.length;
  }

  /** Requests, running ones first. */
  get requests(): readonly Request[] {
    return [...this.#running, ...this.#waiting].map(({ request }) => request);
  }

  /** Queues a request. @throws VramError `out-of-memory`, retryable, where the queue is full. */
  add(request: Request): void {
    const { maxWaiting } = this.#options;
    if (this.#waiting.length >= maxWaiting) {
      throw new VramError('out-of-memory', `${maxWaiting} requests wait already; try again later`, {
        context: { maxWaiting },
        retryable: true,
      });
    }
    this.#waiting.push({ request, isResumed: false });
  }

  /** Forgets a request and frees its blocks, whatever its state; unknown ones are ignored. */
  remove(request: Request): void {
    const index = this.#running.findIndex((each) => each.request === request);
    const [running] = index < 0 ? [] : this.#running.splice(index, 1);
    if (running !== undefined) this.#manager.free(running.sequence);
    const waits = this.#waiting.findIndex((each) => each.request === request);
    if (waits >= 0) this.#waiting.splice(waits, 1);
  }

  /**
   * The next step, its blocks allocated: run it, or {@link remove} its requests. `undefined` where
   * there is nothing to do.
   * @throws VramError `out-of-memory` where the first waiting request cannot run even alone.
   */
  plan(): StepPlan<Request> | undefined {
    const parts: ScheduledPart<Request>[] = [];
    this.#mapping.clear();
    let rows = this.#options.maxTokens;
    const before = [...this.#running];
    for (const running of before) {
      const part = rows > 0 ? this.#advance(running, rows) : undefined;
      if (part === undefined) continue;
      parts.push(part);
      rows -= part.count;
    }
    // Whoever was preempted would take back the blocks that it gave.
    const isShort = this.#running.length < before.length;
    while (!isShort && rows > 0 && this.#running.length < this.#options.maxSequences) {
      const part = this.#admit(rows);
      if (part === undefined) break;
      parts.push(part);
      rows -= part.count;
    }
    if (parts.length > 0) return { parts, mapping: this.#mapping };
    const [first] = this.#waiting;
    if (first === undefined) return undefined;
    const { pool } = this.#manager;
    return fail(
      'out-of-memory',
      `a request of ${first.request.tokens.length} tokens does not fit ${pool.blockCount - 1} ` +
        `blocks of ${pool.blockSize} tokens`,
      { tokens: first.request.tokens.length, blockCount: pool.blockCount - 1 },
    );
  }

  /** The next tokens of a running request; preempts the youngest until they fit. */
  #advance(running: Running<Request>, rows: number): ScheduledPart<Request> | undefined {
    const { request, sequence } = running;
    if (!this.#running.includes(running)) return undefined;
    const contextLength = this.#manager.committedTokens(sequence);
    const end = Math.min(request.tokens.length, contextLength + rows);
    while (!this.#manager.tryAppend(sequence, request.tokens, this.#mapping, contextLength, end)) {
      const victim = this.#running.pop();
      if (victim === undefined) return undefined;
      this.#manager.preempt(victim.sequence);
      this.#waiting.unshift({ request: victim.request, isResumed: true });
      if (victim === running) return undefined;
    }
    return this.#part(running, contextLength, end);
  }

  #admit(rows: number): ScheduledPart<Request> | undefined {
    const [next] = this.#waiting;
    if (next === undefined) return undefined;
    const { request, isResumed } = next;
    const keys = request.namespace === '' ? {} : { namespace: request.namespace };
    const sequence = this.#manager.tryAllocate(request.tokens, this.#mapping, {
      keys,
      isResumed,
      appendTokens: rows,
    });
    if (sequence === undefined) return undefined;
    this.#waiting.shift();
    const running = { request, sequence };
    this.#running.push(running);
    const contextLength = this.#manager.hitTokens(sequence);
    return this.#part(running, contextLength, this.#manager.committedTokens(sequence));
  }

  #part(running: Running<Request>, contextLength: number, end: number): ScheduledPart<Request> {
    const isComplete = end === running.request.tokens.length;
    return { ...running, contextLength, count: end - contextLength, isComplete };
  }

  /** @throws VramError `invariant` where requests and sequences do not match. */
  check(): void {
    this.#manager.check();
    for (const { request, sequence } of this.#running) {
      const held = this.#manager.committedTokens(sequence);
      if (held <= request.tokens.length) continue;
      fail('invariant', `sequence ${sequence} holds ${held} of ${request.tokens.length} tokens`, {
        sequence,
      });
    }
  }
}
