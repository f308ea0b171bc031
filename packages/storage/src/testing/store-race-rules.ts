/** Rules about several clients at once: conditions decide races, and no reader sees a mixture. */
import { isVramError } from '@vramkit/core';
import type { BlobInfo } from '../blob-store.js';
import { testBytes, type StoreRule, type StoreTest } from './store-test.js';

/** How hard the suite races. */
export interface RaceOptions {
  /** Rounds of the create race. */
  readonly rounds: number;
  /** Writers of each round. */
  readonly writers: number;
}

/** How many puts at once resolved; any other than a conflict is thrown. */
async function settle(puts: readonly Promise<BlobInfo>[]): Promise<number[]> {
  const results = await Promise.allSettled(puts);
  return results.flatMap((result, index) => {
    if (result.status === 'fulfilled') return [index];
    if (!isVramError(result.reason, 'conflict')) throw result.reason;
    return [];
  });
}

async function raceToCreate(test: StoreTest, name: string, sizeBytes: number, writers: number) {
  const bodies = Array.from({ length: writers }, (_, writer) => testBytes(sizeBytes, writer + 1));
  const puts = bodies.map((body, writer) =>
    (writer % 2 === 0 ? test.store : test.other).put(test.key(name), body, { condition: 'absent' }),
  );
  const winners = await settle(puts);
  test.same('winners', winners.length, 1);
  const [winner = 0] = winners;
  test.sameBytes("the winner's bytes", await test.read(name), bodies[winner] ?? testBytes(0));
}

/** Puts with the condition `absent`. */
export function registerCreate(rule: StoreRule, { rounds, writers }: RaceOptions): void {
  rule('creates a blob only once, or says that it cannot', async (test) => {
    const condition = 'absent';
    const put = () => test.store.put(test.key('once'), testBytes(10, 2), { condition });
    if (!test.store.capabilities.createIfAbsent) {
      await test.rejects('unsupported', put());
      test.same('names', await test.names(), []);
      return;
    }
    const first = await put();
    await test.rejects('conflict', put());
    test.same('head', await test.other.head(test.key('once')), first);
    await test.store.delete(test.key('once'));
    await put();
    for (let round = 0; round < rounds; round += 1) {
      const name = `race/${round}`;
      await raceToCreate(test, name, round % 8 === 7 ? 1_500_000 : 4096, writers);
    }
  });

  rule('holds a conditional body up to its limit, and refuses a larger one', async (test) => {
    const { createIfAbsent, maxConditionalBytes } = test.store.capabilities;
    if (!createIfAbsent || maxConditionalBytes > 256 * 2 ** 20) return;
    const condition = 'absent';
    const body = testBytes(maxConditionalBytes);
    await test.store.put(test.key('largest'), body, { condition });
    test.sameBytes('blob', await test.read('largest'), body);
    const larger = testBytes(maxConditionalBytes + 1);
    await test.rejects('unsupported', test.store.put(test.key('larger'), larger, { condition }));
    test.same('names', await test.names(), ['largest']);
  });
}

/** Puts with a version as condition. */
export function registerSwap(rule: StoreRule): void {
  const workers = 4;
  const increments = 6;

  // The counter is the list of increments that were applied, so that one whose answer was lost is
  // found when it is read again.
  const increment = async (test: StoreTest, id: number): Promise<void> => {
    const store = id % 2 === 0 ? test.store : test.other;
    for (let tries = 1; tries <= 1000; tries += 1) {
      const info = await store.head(test.key('counter'));
      const { version = '' } = info ?? {};
      try {
        const applied = await test.read('counter', { version }, store);
        if (applied.includes(id)) return;
        const condition = { version };
        await store.put(test.key('counter'), Uint8Array.of(...applied, id), { condition });
        return;
      } catch (error) {
        if (!isVramError(error) || !(error.code === 'conflict' || error.retryable)) throw error;
      }
    }
    throw new Error('a compare-and-swap lost a thousand times');
  };

  rule('swaps only the version that was read, or says that it cannot', async (test) => {
    const old = await test.put('swapped', testBytes(10, 1));
    const condition = { version: old.version };
    const put = () => test.store.put(test.key('swapped'), testBytes(11, 2), { condition });
    if (!test.store.capabilities.compareAndSwap) {
      await test.rejects('unsupported', put());
      test.sameBytes('blob', await test.read('swapped'), testBytes(10, 1));
      return;
    }
    await put();
    await test.rejects('conflict', put());
    await test.store.delete(test.key('swapped'));
    await test.rejects('conflict', put());
    test.same('names', await test.names(), []);
    await test.put('counter', new Uint8Array(0));
    await Promise.all(
      Array.from({ length: workers }, async (_, worker) => {
        for (let i = 0; i < increments; i += 1) await increment(test, worker * increments + i);
      }),
    );
    const applied = [...(await test.read('counter'))].sort((a, b) => a - b);
    test.same(
      'increments',
      applied,
      Array.from({ length: workers * increments }, (_, i) => i),
    );
  });
}

/** Readers beside a writer. */
export function registerReaders(rule: StoreRule): void {
  rule('shows a reader one put whole, never a mixture', async (test) => {
    const bodies = [testBytes(1_300_000, 5), testBytes(2_700_000, 6), testBytes(40_000, 7)];
    await test.put('busy', bodies[0] ?? testBytes(0));
    let isWriting = true;
    const write = async (): Promise<void> => {
      for (let i = 1; i <= 12; i += 1) await test.put('busy', bodies[i % 3] ?? testBytes(0));
      isWriting = false;
    };
    let reads = 0;
    const read = async (): Promise<void> => {
      while (isWriting) {
        try {
          const bytes = await test.read('busy', {}, test.other);
          const whole = bodies.some((body) => Buffer.compare(body, bytes) === 0);
          test.same('one of the bodies', whole, true);
          reads += 1;
        } catch (error) {
          // Replaced while it was read in several steps: said, not mixed.
          if (!isVramError(error, 'conflict')) throw error;
        }
      }
    };
    await Promise.all([write(), read(), read()]);
    test.same('some reads succeeded', reads > 0, true);
  });

  rule('shows every client at once what was put and deleted', async (test) => {
    for (let i = 0; i < 10; i += 1) {
      const bytes = testBytes(1000 + i, i);
      const info = await test.put('shared', bytes);
      test.same('head', await test.other.head(test.key('shared')), info);
      test.sameBytes('blob', await test.read('shared', {}, test.other), bytes);
      await test.other.delete(test.key('shared'));
      test.same('names', await test.names(), []);
    }
  });
}
