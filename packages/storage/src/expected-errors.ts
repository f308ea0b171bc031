/** Errors that a caller goes on from, as values. */
import { isVramError, type VramErrorCode } from '@vramkit/core';

/** What a promise gives, or the code of its error where that is one of `codes`. */
export async function orCode<Result, Code extends VramErrorCode>(
  result: Promise<Result>,
  ...codes: readonly Code[]
): Promise<Result | Code> {
  try {
    return await result;
  } catch (error) {
    const code = codes.find((expected) => isVramError(error, expected));
    if (code !== undefined) return code;
    throw error;
  }
}
