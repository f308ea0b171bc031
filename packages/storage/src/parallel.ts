/** A bounded number of asynchronous pieces of work at once. */

/**
 * Runs `work(0)` to `work(count - 1)`, at most `width` at once, begun in order. After a failure no
 * more begins; what runs is waited for, then the first failure is thrown.
 */
export async function inParallel(
  count: number,
  width: number,
  work: (index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  let failure: { readonly error: unknown } | undefined;
  const worker = async (): Promise<void> => {
    while (next < count && failure === undefined) {
      const index = next;
      next += 1;
      try {
        await work(index);
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(width, count) }, worker));
  if (failure !== undefined) throw failure.error;
}

/**
 * Results of `work` in the order of the items, at most `width` begun and not yet taken. After a
 * failure, or where the consumer leaves, no more begins; what runs is waited for.
 */
export async function* inOrder<Item, Result>(
  items: Iterable<Item> | AsyncIterable<Item>,
  width: number,
  work: (item: Item) => Promise<Result>,
): AsyncGenerator<Result, void, undefined> {
  const ahead: Promise<Result>[] = [];
  try {
    for await (const item of items) {
      const result = work(item);
      result.catch(() => undefined); // awaited in order below
      ahead.push(result);
      const [first] = ahead;
      if (ahead.length < width || first === undefined) continue;
      yield await first;
      void ahead.shift();
    }
    for (let next = ahead[0]; next !== undefined; next = ahead[0]) {
      yield await next;
      void ahead.shift();
    }
  } finally {
    await Promise.allSettled(ahead);
  }
}
