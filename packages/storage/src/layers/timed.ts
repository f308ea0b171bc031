/**
 * Gives up on what takes too long, with the code `timeout`.
 *
 * Each put, head and delete has the whole time; a get and a list have it anew for every chunk and
 * key, so a slow consumer is no timeout. The upstream's signal fires too; an upstream that ignores
 * it goes on unseen, which is why nobody knows whether a timed-out put took effect.
 */
import { assertArgument, VramError } from '@vramkit/core';
import type { BlobStore, CallOptions } from '../blob-store.js';
import { wrapStore } from './wrap.js';

/** Options of {@link timedStore}. */
export interface TimeoutOptions {
  /** Milliseconds for a call, or for one step of a get or a list. */
  readonly timeoutMs: number;
}

/** A store whose calls end in time; `upstream` stays the caller's. */
export function timedStore(upstream: BlobStore, { timeoutMs }: TimeoutOptions): BlobStore {
  assertArgument(timeoutMs > 0 && timeoutMs < 2 ** 31, `timeoutMs ${timeoutMs} is out of range`);
  const late = (doing: string): VramError =>
    new VramError('timeout', `${upstream.name}, ${doing}: not done in ${timeoutMs} ms`, {
      context: { store: upstream.name, timeoutMs },
      retryable: true,
    });
  const once = async <Options extends CallOptions, Result>(
    doing: string,
    options: Options | undefined,
    call: (options: Linked<Options>) => Promise<Result>,
  ): Promise<Result> => {
    const { controller, linked, unlink } = link(options);
    try {
      return await within(
        () => call(linked),
        timeoutMs,
        controller,
        () => late(doing),
      );
    } finally {
      unlink();
    }
  };
  async function* steps<Options extends CallOptions, Item>(
    doing: string,
    options: Options | undefined,
    call: (options: Linked<Options>) => AsyncIterable<Item>,
  ): AsyncGenerator<Item, void, undefined> {
    const { controller, linked, unlink } = link(options);
    const iterator = call(linked)[Symbol.asyncIterator]();
    let isLate = false;
    const giveUp = (): VramError => {
      isLate = true;
      return late(doing);
    };
    try {
      for (;;) {
        const step = await within(() => iterator.next(), timeoutMs, controller, giveUp);
        if (step.done === true) return;
        yield step.value;
      }
    } finally {
      unlink();
      // Not awaited after a timeout: an upstream that hangs would hang here too.
      const left = iterator.return?.();
      if (isLate) left?.catch(() => undefined);
      else await left;
    }
  }

  return wrapStore(upstream, {
    put: (key, body, options) =>
      once(`put '${key}'`, options, (linked) => upstream.put(key, body, linked)),
    head: (key, options) => once(`head '${key}'`, options, (linked) => upstream.head(key, linked)),
    delete: (key, options) =>
      once(`delete '${key}'`, options, (linked) => upstream.delete(key, linked)),
    get: (key, options) =>
      // A call that was given up may go on, and must not write into what the caller has back.
      steps(`get '${key}'`, options, (linked) => upstream.get(key, { ...linked, into: undefined })),
    list: (prefix, options) =>
      steps(`list '${prefix}'`, options, (linked) => upstream.list(prefix, linked)),
  });
}

/** The result of `call`, or the error of `late` once the time is over; the signal fires then. */
async function within<Result>(
  call: () => Promise<Result>,
  timeoutMs: number,
  controller: AbortController,
  late: () => VramError,
): Promise<Result> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timedOut = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const error = late();
      // Rejected first: the upstream's own error of the signal comes later and is dropped.
      reject(error);
      controller.abort(error);
    }, timeoutMs);
  });
  try {
    return await Promise.race([call(), timedOut]);
  } finally {
    clearTimeout(timer);
  }
}

type Linked<Options> = Options & { readonly signal: AbortSignal };

/**
 * Options whose signal also fires when the controller does, and what takes the listener off the
 * given signal: one that outlives many calls must not keep something of each.
 */
function link<Options extends CallOptions>(options: Options | undefined) {
  const controller = new AbortController();
  const given = options?.signal;
  const abort = (): void => controller.abort(given?.reason);
  if (given?.aborted === true) abort();
  given?.addEventListener('abort', abort);
  // A spread of Options keeps its fields; only the signal changes, within its type.
  const linked = { ...options, signal: controller.signal } as Linked<Options>;
  return { controller, linked, unlink: () => given?.removeEventListener('abort', abort) };
}
