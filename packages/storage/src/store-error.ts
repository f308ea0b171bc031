/** The errors that several adapters and layers raise, worded alike. */
import {
  fail,
  isVramError,
  VramError,
  type VramErrorCode,
  type VramErrorContext,
} from '@vramkit/core';
import type { BlobStore, PutCondition } from './blob-store.js';

/** @throws VramError `not-found`. */
export function failNotFound(store: string, key: string): never {
  fail('not-found', `${store} has no blob '${key}'`, { store, key });
}

/** The error of a write whose condition does not hold, or of a read that met another version. */
export function conflictError(store: string, key: string, why: string): VramError {
  return new VramError('conflict', `'${key}' of ${store} ${why}`, { context: { store, key } });
}

/** What a lost condition means, in words. */
export function lostCondition(condition: PutCondition): string {
  return condition === 'absent'
    ? 'exists already'
    : `no longer has version '${condition.version}'; read it again`;
}

/**
 * Checks that a store has a condition and can hold so large a body under it.
 * @throws VramError `unsupported`.
 */
export function checkCondition(
  { name, capabilities }: Pick<BlobStore, 'name' | 'capabilities'>,
  condition: PutCondition | undefined,
  sizeBytes = 0,
): void {
  const { createIfAbsent, compareAndSwap, maxConditionalBytes } = capabilities;
  if (condition === undefined) return;
  if (!(condition === 'absent' ? createIfAbsent : compareAndSwap)) {
    const what = condition === 'absent' ? 'createIfAbsent' : 'compareAndSwap';
    fail('unsupported', `${name} has no ${what}`, { store: name, capability: what });
  }
  if (sizeBytes > maxConditionalBytes) {
    fail(
      'unsupported',
      `${name} puts at most ${maxConditionalBytes} B under a condition; put the data under a ` +
        'name of its own and a small manifest under the condition',
      { store: name, sizeBytes, maxConditionalBytes },
    );
  }
}

/** Whether a write that failed so may be applied all the same, or later. */
export function mayBeApplied(error: unknown): boolean {
  return isVramError(error, 'timeout') || isVramError(error, 'unavailable');
}

// What Node reports for files and sockets, by what a caller can do about it.
const BY_NODE_CODE: Readonly<Record<string, VramErrorCode>> = {
  ENOSPC: 'storage-full',
  EDQUOT: 'storage-full',
  EFBIG: 'storage-full',
  EACCES: 'access-denied',
  EPERM: 'access-denied',
  EROFS: 'access-denied',
  ETIMEDOUT: 'timeout',
};

/** The `code` of an error of Node or of a driver, or an empty text. */
export function codeOf(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : '';
  return typeof code === 'string' ? code : '';
}

/** An error of a file or a socket as a typed one; what is not known is `unavailable`. */
export function systemError(store: string, doing: string, error: unknown): VramError {
  const system = codeOf(error);
  const code = BY_NODE_CODE[system] ?? 'unavailable';
  return new VramError(code, `${store}, ${doing}: ${system || 'failed'}`, {
    context: { store, systemCode: system },
    retryable: code === 'unavailable' || code === 'timeout',
    cause: error,
  });
}

/** What a service said went wrong. */
export interface ServiceFailure {
  readonly code: VramErrorCode;
  /** The service's own word for it. */
  readonly reason: string;
  readonly context: VramErrorContext;
}

/**
 * The error of a request: a typed one as it is, one of an aborted request as `aborted`, any other
 * as `explain` says. What the client threw is not kept as a cause: it may hold the request, with
 * its address and its signature.
 */
export function serviceError(
  store: string,
  doing: string,
  { error, signal }: { readonly error: unknown; readonly signal?: AbortSignal | undefined },
  explain: (error: unknown) => ServiceFailure,
): VramError {
  if (isVramError(error)) return error;
  if (signal?.aborted === true) {
    return new VramError('aborted', `${store}, ${doing}: the caller aborted it`, {
      cause: signal.reason,
    });
  }
  const { code, reason, context } = explain(error);
  return new VramError(code, `${store}, ${doing}: ${reason}`, {
    context: { store, ...context },
    retryable: code === 'unavailable' || code === 'timeout',
  });
}
