/**
 * Errors of the readers: each names the file first, so that a message is useful where many files
 * are open, and carries the same names and numbers as context.
 */
import { fail, type VramErrorContext } from '@vramkit/core';

/**
 * Reports bytes that do not follow their format.
 * @throws VramError `corrupt-data`, always.
 */
export function failCorrupt(file: string, message: string, context: VramErrorContext = {}): never {
  return fail('corrupt-data', `${file}: ${message}`, { file, ...context });
}

/**
 * Reports a file that is valid and that these readers do not handle.
 * @throws VramError `unsupported`, always.
 */
export function failUnsupported(
  file: string,
  message: string,
  context: VramErrorContext = {},
): never {
  return fail('unsupported', `${file}: ${message}`, { file, ...context });
}
