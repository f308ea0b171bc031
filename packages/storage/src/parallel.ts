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
