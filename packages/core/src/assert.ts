/**
 * Assertions that stay on in production: arguments at public entries, invariants at state changes.
 *
 * The message is a plain string built by the caller only where the check is cold; hot paths test
 * the condition themselves and call {@link fail} in the failing branch, so no text is built.
 */
import { VramError, type VramErrorCode, type VramErrorContext } from './errors.js';

/**
 * Throws a {@link VramError}; typed `never` so that it can end an expression.
 * @throws VramError with `code`.
 */
export function fail(code: VramErrorCode, message: string, context?: VramErrorContext): never {
  throw new VramError(code, message, context === undefined ? {} : { context });
}

/**
 * Narrows a condition that callers control.
 * @throws VramError `invalid-argument` where `condition` is false.
 */
export function assertArgument(
  condition: boolean,
  message: string,
  context?: VramErrorContext,
): asserts condition {
  if (!condition) fail('invalid-argument', message, context);
}

/**
 * Narrows a condition that only a defect can break.
 * @throws VramError `invariant` where `condition` is false.
 */
export function assertInvariant(
  condition: boolean,
  message: string,
  context?: VramErrorContext,
): asserts condition {
  if (!condition) fail('invariant', message, context);
}

/**
 * Checks that `value` is an integer in `[min, max]` and returns it.
 * @throws VramError `invalid-argument` with the name, the value and the range.
 */
export function checkInteger(
  name: string,
  value: number,
  min = 0,
  max = Number.MAX_SAFE_INTEGER,
): number {
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    fail('invalid-argument', `${name} must be an integer in [${min}, ${max}], got ${value}`, {
      name,
      value: String(value),
      min,
      max,
    });
  }
  return value;
}

/**
 * Checks that `signal` has not fired.
 * @throws VramError `aborted` where it has, with the signal's reason as cause.
 */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) {
    throw new VramError('aborted', 'the caller aborted the operation', { cause: signal.reason });
  }
}
