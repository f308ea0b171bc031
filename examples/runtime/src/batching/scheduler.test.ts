/** The scheduler without a GPU: a pretend model whose next token depends on all tokens before. */
import { BlockPool, KvCacheManager } from '@vramkit/block-allocator';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Scheduler, type SchedulerOptions, type StepPlan } from './scheduler.js';

const BLOCK_SIZE = 4;
const DEFAULTS = { maxTokens: 8, maxSequences: 4, maxWaiting: 100 };

class Request {
  readonly namespace = '';
  readonly #tokens: number[];
  readonly wanted: number;
  constructor(prompt: readonly number[], wanted: number) {
    this.#tokens = [...prompt];
    this.wanted = prompt.length + wanted;
  }
  get tokens(): Uint32Array {
    return Uint32Array.from(this.#tokens);
  }
  get isDone(): boolean {
    return this.#tokens.length === this.wanted;
  }
  push(token: number): void {
    this.#tokens.push(token);
  }
}

/** Executes plans on a pretend cache: slot -> token, so that wrong slots give wrong tokens. */
class PretendDevice {
  readonly #slots = new Map<number, number>();
  readonly #manager: KvCacheManager;
  computed = 0;

  constructor(manager: KvCacheManager) {
    this.#manager = manager;
  }

  run({ parts, mapping }: StepPlan<Request>): void {
    let row = 0;
    for (const { request, contextLength, count } of parts) {
      for (let i = 0; i < count; i++) {
        expect(mapping.positions[row]).toBe(contextLength + i);
        this.#slots.set(mapping.slots[row++] ?? -1, request.tokens[contextLength + i] ?? -1);
      }
      this.computed += count;
    }
    expect(row).toBe(mapping.length);
    for (const { request, sequence, isComplete } of parts) {
      const table = this.#manager.table(sequence);
      const seen = Array.from({ length: table.cachedTokenCount }, (_, i) =>
        this.#slots.get(table.slotAt(i)),
      );
      expect(seen).toEqual([...request.tokens.subarray(0, table.cachedTokenCount)]);
      if (isComplete) request.push(nextToken(seen));
    }
  }
}

function nextToken(seen: readonly (number | undefined)[]): number {
  return seen.reduce<number>((sum, token) => (sum * 31 + (token ?? 0)) % 5, 1);
}

function alone({ tokens, wanted }: Request): number[] {
  const all = [...tokens];
  while (all.length < wanted) all.push(nextToken(all));
  return all;
}

function setUp(blockCount: number, options: Partial<SchedulerOptions> = {}) {
  const manager = new KvCacheManager(new BlockPool({ blockCount, blockSize: BLOCK_SIZE }));
  const scheduler = new Scheduler<Request>(manager, { ...DEFAULTS, ...options });
  const device = new PretendDevice(manager);
  const step = (): boolean => {
    const plan = scheduler.plan();
    scheduler.check();
    if (plan === undefined) return false;
    device.run(plan);
    for (const { request } of plan.parts) if (request.isDone) scheduler.remove(request);
    return true;
  };
  return { manager, scheduler, device, step };
}

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

describe('Scheduler', () => {
  it('prefills in chunks, decodes together, and computes a shared prefix once', () => {
    const { scheduler, device, manager, step } = setUp(64);
    const requests = range(3).map((i) => new Request([...range(16), 100 + i], 3));
    const expected = requests.map(alone);
    for (const request of requests) scheduler.add(request);
    const plan = scheduler.plan();
    expect(plan?.parts.map(({ count, isComplete }) => [count, isComplete])).toEqual([[8, false]]);
    if (plan !== undefined) device.run(plan);
    while (step());
    expect(requests.map(({ tokens }) => [...tokens])).toEqual(expected);
    // 17 tokens of the first, one behind four shared blocks of each other, two decodes of each.
    expect(device.computed).toBe(17 + 1 + 1 + 3 * 2);
    expect(manager.metrics().hitTokens).toBe(32);
    expect(manager.pool.freeCount).toBe(63);
  });

  it('preempts the youngest when blocks run out, which then goes on as before', () => {
    const { scheduler, manager, step } = setUp(7);
    const requests = [
      new Request(range(8), 8),
      new Request(
        range(8).map((i) => i + 50),
        12,
      ),
    ];
    const expected = requests.map(alone);
    for (const request of requests) scheduler.add(request);
    while (step());
    expect(requests.map(({ tokens }) => [...tokens])).toEqual(expected);
    expect(manager.metrics().preemptions).toBeGreaterThan(0);
    expect(manager.metrics().requests).toBe(2);
  });

  it('bounds its queue, and says when a request cannot run at all', () => {
    const { scheduler } = setUp(4, { maxWaiting: 1 });
    const large = new Request(range(40), 1);
    scheduler.add(large);
    expect(() => scheduler.add(new Request([1], 1))).toThrow(
      expect.objectContaining({ code: 'out-of-memory', retryable: true }),
    );
    // Its first chunks fit, the others do not: it is given up with everything else preempted.
    expect(() => {
      for (let i = 0; i < 20; i++) scheduler.plan();
    }).toThrow(expect.objectContaining({ code: 'out-of-memory' }));
    scheduler.remove(large);
    expect(scheduler.plan()).toBeUndefined();
  });

  it('gives every request its own tokens under any load', () => {
    const request = fc.record({
      shared: fc.integer({ min: 0, max: 12 }),
      own: fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 10 }),
      wanted: fc.integer({ min: 1, max: 12 }),
      delay: fc.integer({ min: 0, max: 10 }),
      leaves: fc.option(fc.integer({ min: 0, max: 15 }), { nil: Infinity }),
    });
    const sizes = fc.record({
      requests: fc.array(request, { minLength: 1, maxLength: 8 }),
      blockCount: fc.integer({ min: 10, max: 24 }),
      maxSequences: fc.integer({ min: 1, max: 5 }),
      maxTokens: fc.integer({ min: 5, max: 12 }),
    });
    fc.assert(
      fc.property(sizes, ({ requests, blockCount, maxSequences, maxTokens }) => {
        const { scheduler, manager, step } = setUp(blockCount, { maxSequences, maxTokens });
        const all = requests.map((each) => ({
          ...each,
          request: new Request([...range(each.shared), ...each.own], each.wanted),
        }));
        const expected = all.map((each) => alone(each.request));
        for (let turn = 0; turn < 1000; turn++) {
          for (const each of all) {
            if (each.delay === turn) scheduler.add(each.request);
            if (each.delay + each.leaves === turn) scheduler.remove(each.request);
          }
          if (!step() && turn > 30) break;
        }
        all.forEach((each, index) => {
          if (each.leaves === Infinity) expect([...each.request.tokens]).toEqual(expected[index]);
        });
        expect(scheduler.requests).toEqual([]);
        expect(manager.pool.freeCount).toBe(blockCount - 1);
      }),
    );
  });
});
