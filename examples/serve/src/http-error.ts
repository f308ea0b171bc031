/**
 * Errors as clients of this API know them: a status and `{ error: { message, type, code, param }
 * }`.
 */
import { isVramError } from '@vramkit/core';

/** An error with the status that it is answered with. */
export class HttpError extends Error {
  readonly statusCode: number;
  readonly code: string | undefined;

  constructor(statusCode: number, message: string, code?: string) {
    super(message);
    this.statusCode = statusCode;
    this.code = code;
  }
}

/** The body of an answer that is an error. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly code: string | null;
    readonly param: null;
  };
}

/** Status and body of any error; what is no client's business becomes a plain 500. */
export function errorAnswer(error: unknown): { readonly status: number; readonly body: ErrorBody } {
  const { status, message, code } = describe(error);
  const type =
    status === 401
      ? 'authentication_error'
      : status < 500
        ? 'invalid_request_error'
        : 'server_error';
  return { status, body: { error: { message, type, code: code ?? null, param: null } } };
}

function describe(error: unknown): { status: number; message: string; code?: string | undefined } {
  if (isVramError(error)) {
    const { message, retryable } = error;
    switch (error.code) {
      case 'invalid-argument':
      case 'unsupported':
        return { status: 400, message };
      case 'context-exceeded':
        return { status: 400, message, code: 'context_length_exceeded' };
      case 'out-of-memory':
        return retryable
          ? { status: 503, message, code: 'overloaded' }
          : { status: 400, message, code: 'context_length_exceeded' };
      case 'disposed':
      case 'device-lost':
        return { status: 503, message, code: 'unavailable' };
      default:
        return { status: 500, message: 'the server failed' };
    }
  }
  // Fastify's own errors (malformed JSON, a body over the limit, a schema) carry a status.
  if (error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number') {
    const code = 'code' in error && typeof error.code === 'string' ? error.code : undefined;
    return { status: error.statusCode, message: error.message, code };
  }
  return { status: 500, message: 'the server failed' };
}
