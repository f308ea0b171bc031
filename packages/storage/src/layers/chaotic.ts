/**
 * Fails on purpose, for tests of what stands above: the faults of a network and of a disk, seeded.
 *
 * A call fails with the given probability: half of the failing puts and deletes before they take
 * effect, half after it, as when an answer is lost; a failing get or list breaks somewhere on its
 * way. Apart from that, a chunk that is read has one bit flipped with a probability of its own,
 * without an error: what a checksum must find.
 */
import { assertArgument, VramError } from '@vramkit/core';
import type { BlobStore } from '../blob-store.js';
import { wrapStore } from './wrap.js';

/** Options of {@link chaoticStore}. */
export interface ChaosOptions {
  /** Numbers in [0, 1); a seeded stream makes the faults repeatable. */
  readonly random: () => number;
  /** Probability that a call fails. Default: 0. */
  readonly failureRate?: number;
  /** Probability that a chunk of a get has one wrong bit. Default: 0. */
  readonly flipRate?: number;
}

/** A store that fails; `upstream` stays the caller's. */
export function chaoticStore(upstream: BlobStore, options: ChaosOptions): BlobStore {
  const { random, failureRate = 0, flipRate = 0 } = options;
  for (const rate of [failureRate, flipRate]) {
    assertArgument(rate >= 0 && rate <= 1, `a probability is in [0, 1], got ${rate}`);
  }
  const fails = (): boolean => random() < failureRate;
  const fault = (call: string, key: string): VramError =>
    new VramError('unavailable', `${call} '${key}' failed on purpose`, {
      context: { store: upstream.name, key },
      retryable: true,
    });
  const around = async <Result>(
    call: string,
    key: string,
    run: () => Promise<Result>,
  ): Promise<Result> => {
    const isFailing = fails();
    if (isFailing && random() < 0.5) throw fault(call, key);
    const result = await run();
    if (isFailing) throw fault(call, key);
    return result;
  };
  async function* broken<Item>(call: string, key: string, items: AsyncIterable<Item>) {
    const isFailing = fails();
    for await (const item of items) {
      if (isFailing && random() < 0.5) throw fault(call, key);
      yield item;
    }
    if (isFailing) throw fault(call, key);
  }

  return wrapStore(upstream, {
    put: (key, body, call) => around('put', key, () => upstream.put(key, body, call)),
    head: (key, call) => around('head', key, () => upstream.head(key, call)),
    delete: (key, call) => around('delete', key, () => upstream.delete(key, call)),
    list: (prefix, call) => broken('list', prefix, upstream.list(prefix, call)),
    async *get(key, call) {
      for await (const chunk of broken('get', key, upstream.get(key, call))) {
        if (random() < flipRate) {
          const at = Math.floor(random() * chunk.length);
          chunk[at] = (chunk[at] ?? 0) ^ (1 << Math.floor(random() * 8));
        }
        yield chunk;
      }
    },
  });
}
