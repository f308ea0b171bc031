/**
 * The one error class of vramkit.
 *
 * A caller decides by `code`, a closed union, and reads numbers and names from `context`; the
 * message repeats them for people. Codes are API: changing or removing one is a breaking change.
 */

/** What went wrong, as a value a program can switch on. */
export type VramErrorCode =
  /** An argument is out of its documented range or of the wrong kind. */
  | 'invalid-argument'
  /** A byte budget, a pool or the driver has no room for a request. */
  | 'out-of-memory'
  /** The GPU device is gone; open a new one and restore state from host or storage. */
  | 'device-lost'
  /** No usable GPU adapter was found. */
  | 'no-adapter'
  /** The object was disposed before this call. */
  | 'disposed'
  /** The device, format or combination is valid but not supported here. */
  | 'unsupported'
  /** The driver rejected a shader, a pipeline or a command. */
  | 'validation'
  /** The caller's `AbortSignal` fired. */
  | 'aborted'
  /** A named thing (file, tensor, model, policy) does not exist. */
  | 'not-found'
  /** Bytes read do not follow their format: truncated, overlapping, wrong magic or checksum. */
  | 'corrupt-data'
  /** A prompt and its continuation do not fit the model's context. */
  | 'context-exceeded'
  /** A conditional write lost: the thing is there already, or is not the version that was read. */
  | 'conflict'
  /** An operation did not end within its time; whether it took effect is unknown. */
  | 'timeout'
  /** A service or a device failed or cannot be reached; the cause has its own words. */
  | 'unavailable'
  /** A disk or a quota is full. */
  | 'storage-full'
  /** The service or the file system refused the caller's credentials or permissions. */
  | 'access-denied'
  /** A worker thread ended in the middle of its work. */
  | 'worker-lost'
  /**
   * A structure's own invariant does not hold: a defect in vramkit or in a caller's bookkeeping.
   */
  | 'invariant';

/** Numbers and names that belong to an error; plain data, so that it can be logged and compared. */
export type VramErrorContext = Readonly<
  Record<string, string | number | boolean | undefined | readonly (string | number)[]>
>;

/** Options of {@link VramError}. */
export interface VramErrorOptions {
  /** Names and numbers behind the message. Default: empty. */
  readonly context?: VramErrorContext;
  /** Whether the same call can succeed later without a change of arguments. Default: false. */
  readonly retryable?: boolean;
  /** The error that led to this one. */
  readonly cause?: unknown;
}

/**
 * Every error that vramkit throws or rejects with.
 *
 * @example
 * ```ts
 * import { VramError } from '@vramkit/core';
 * const error = new VramError('out-of-memory', "needed 4096 B of 'kv', 1024 B free of 8192 B", {
 *   context: { kind: 'kv', neededBytes: 4096, freeBytes: 1024, limitBytes: 8192 },
 * });
 * console.log(error.code, error.context['neededBytes']);
 * ```
 */
export class VramError extends Error {
  /** What went wrong. */
  readonly code: VramErrorCode;
  /** Names and numbers behind the message. */
  readonly context: VramErrorContext;
  /** Whether the same call can succeed later without a change of arguments. */
  readonly retryable: boolean;

  constructor(code: VramErrorCode, message: string, options: VramErrorOptions = {}) {
    super(
      `${code}: ${message}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.name = 'VramError';
    this.code = code;
    this.context = options.context ?? {};
    this.retryable = options.retryable ?? false;
  }
}

/**
 * Whether `error` is a {@link VramError}, optionally of one code; also across two copies of core.
 */
export function isVramError(error: unknown, code?: VramErrorCode): error is VramError {
  return (
    error instanceof Error &&
    error.name === 'VramError' &&
    'code' in error &&
    (code === undefined || error.code === code)
  );
}
