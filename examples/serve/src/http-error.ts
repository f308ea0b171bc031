/**
 * Errors as clients of this API know them: a status and `{ error: { message, type, code, param }
 * }`.
 */
import { isVramError } from '@vramkit/core';
import type { FastifySchemaValidationError } from 'fastify';

/** An error with the status that it is answered with. */
export class HttpError extends Error {
  readonly statusCode: number;
  readonly code: string | null;
  /** The field of the request that is wrong, such as `messages[0].role`. */
  readonly param: string | null;

  constructor(
    statusCode: number,
    message: string,
    code: string | null = null,
    param: string | null = null,
  ) {
    super(message);
    this.statusCode = statusCode;
    this.code = code;
    this.param = param;
  }
}

/** The body of an answer that is an error. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly code: string | null;
    readonly param: string | null;
  };
}

/** Status and body of any error; what is no client's business becomes a plain 500. */
export function errorAnswer(error: unknown): { readonly status: number; readonly body: ErrorBody } {
  const { status, message, code = null, param = null } = describe(error);
  const type =
    status === 401
      ? 'authentication_error'
      : status < 500
        ? 'invalid_request_error'
        : 'server_error';
  return { status, body: { error: { message, type, code, param } } };
}

/** A body that its schema refuses, as one error that names the field. */
export function schemaError(errors: readonly FastifySchemaValidationError[]): HttpError {
  // Where a field may have several forms, the errors of each come before the one about all.
  const error = errors.at(-1);
  if (error === undefined) return new HttpError(400, 'the body is not understood');
  const { keyword, instancePath, params, message = 'is not understood' } = error;
  const path = instancePath
    .slice(1)
    .replaceAll(/\/(\d+)/g, '[$1]')
    .replaceAll('/', '.');
  if (keyword === 'required') {
    const missing = String(params['missingProperty']);
    const param = path === '' ? missing : `${path}.${missing}`;
    return new HttpError(400, `'${param}' is missing`, 'missing_required_parameter', param);
  }
  const field = path === '' ? 'the body' : `'${path}'`;
  const what = keyword === 'anyOf' ? 'has none of the forms that are understood' : message;
  const code = keyword === 'type' ? 'invalid_type' : 'invalid_value';
  return new HttpError(400, `${field} ${what}`, code, path === '' ? null : path);
}

interface ErrorParts {
  readonly status: number;
  readonly message: string;
  readonly code?: string | null;
  readonly param?: string | null;
}

function describe(error: unknown): ErrorParts {
  if (error instanceof HttpError) {
    const { statusCode: status, message, code, param } = error;
    return { status, message, code, param };
  }
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
  // Fastify's own errors (malformed JSON, a body over the limit) carry a status.
  if (error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number') {
    return { status: error.statusCode, message: error.message };
  }
  return { status: 500, message: 'the server failed' };
}
