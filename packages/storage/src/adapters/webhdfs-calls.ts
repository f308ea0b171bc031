/**
 * The operations of WebHDFS that the store uses.
 *
 * The NameNode answers a write with the address of a DataNode, as a redirect or, when asked by
 * `noredirect`, as JSON; HttpFS takes the bytes itself. Errors keep the name of the remote
 * exception. Addresses hold the user or the token, so none is ever in an error. Requests are those
 * of `fetch`, but for uploads: a DataNode says `100 Continue` without being asked, which `fetch`
 * takes for a broken answer.
 *
 * HDFS allows no ':' in a name: it is stored as '%3A', and '%' as '%25'.
 */
import http from 'node:http';
import https from 'node:https';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { VramError, VramErrorCode } from '@vramkit/core';
import { serviceError } from '../store-error.js';

/** Who asks. A delegation token stands in for a user where Kerberos gave one. */
export type WebHdfsUser = { readonly name: string } | { readonly delegationToken: string };

/** What HDFS knows of a file or a folder. */
export interface HdfsStatus {
  readonly pathSuffix: string;
  readonly type: 'FILE' | 'DIRECTORY';
  readonly length: number;
  readonly fileId: number;
  readonly modificationTime: number;
}

/** A refusal, by the name of the exception that HDFS threw. */
export class HdfsRefusal extends Error {
  constructor(
    readonly exception: string,
    readonly status: number,
  ) {
    super(exception);
  }
}

type Parameters = Readonly<Record<string, string | number | boolean>>;

/** Calls on one file system below one folder. */
export class WebHdfsCalls {
  readonly name: string;
  readonly #base: URL;
  readonly #folder: string;
  readonly #user: WebHdfsUser;

  constructor(url: URL, folder: string, user: WebHdfsUser) {
    this.name = `webhdfs ${url.host}${folder}`;
    this.#base = new URL('/webhdfs/v1', url);
    this.#folder = folder.replace(/\/+$/, '');
    this.#user = user;
  }

  /** The path of a key or of a file id, without the part of the address that comes before. */
  path(key: string | number): string {
    if (typeof key === 'number') return `/.reserved/.inodes/${key}`;
    const escaped = key.replace(/[%:]/g, (c) => (c === '%' ? '%25' : '%3A'));
    return `${this.#folder}/${escaped}`;
  }

  /** The part of a key that a name of HDFS stands for. */
  unescape(name: string): string {
    return name.replace(/%(25|3A)/g, (_, code: string) => (code === '25' ? '%' : ':'));
  }

  /** Size, kind and id, or `undefined` where there is nothing. */
  async status(key: string, signal?: AbortSignal): Promise<HdfsStatus | undefined> {
    try {
      const answer = await this.#json('GET', key, { op: 'GETFILESTATUS' }, signal);
      return answer.FileStatus;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** What is in a folder; nothing where it is missing or a file. */
  async entries(folderKey: string, signal?: AbortSignal): Promise<readonly HdfsStatus[]> {
    try {
      const answer = await this.#json('GET', folderKey, { op: 'LISTSTATUS' }, signal);
      const found = answer.FileStatuses?.FileStatus ?? [];
      return found.filter(({ pathSuffix }) => pathSuffix !== ''); // a file lists itself
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  }

  async makeFolder(folderKey: string, signal?: AbortSignal): Promise<void> {
    await this.#json('PUT', folderKey, { op: 'MKDIRS' }, signal);
  }

  /** Moves a file; onto another one only with `OVERWRITE`. */
  async rename(from: string, to: string, renameoptions: 'NONE' | 'OVERWRITE'): Promise<void> {
    const parameters = { op: 'RENAME', destination: this.path(to), renameoptions };
    await this.#json('PUT', from, parameters);
  }

  /** Removes a file or an empty folder, by its key or its file id. */
  async remove(key: string | number, signal?: AbortSignal): Promise<void> {
    await this.#json('DELETE', key, { op: 'DELETE', recursive: false }, signal);
  }

  /** Removes a folder if it is empty; whether nothing has its name. */
  async removeFolder(folderKey: string): Promise<boolean> {
    const found = await this.status(folderKey);
    if (found?.type !== 'DIRECTORY') return found === undefined;
    try {
      await this.remove(found.fileId); // a file may have taken its name
      return true;
    } catch (error) {
      if (isRefusal(error, 'PathIsNotEmptyDirectoryException')) return false;
      if (isMissing(error) || isRefusal(error, 'Refused')) return true; // somebody else was first
      throw error;
    }
  }

  /** Writes a new file, in two steps. */
  async create(
    key: string,
    chunks: AsyncIterable<Uint8Array>,
    signal?: AbortSignal,
  ): Promise<void> {
    const parameters = { op: 'CREATE', overwrite: false, noredirect: true, data: true };
    const first = await this.#request('PUT', key, parameters, { redirect: 'manual', signal });
    let location = first.headers.get('location');
    if (location === null) {
      // A foreign boundary: what is not there is checked next.
      const answer = (await first.json().catch(() => ({}))) as { Location?: string };
      location = answer.Location ?? null;
    } else await first.body?.cancel();
    if (location === null) throw new HdfsRefusal('NoLocation', first.status);
    const { status, text } = await upload(new URL(location), chunks, signal);
    if (status < 200 || status > 299) throw new HdfsRefusal(exceptionIn(text, status), status);
  }

  /** The bytes of a file from an offset, as one open file gives them. */
  async *read(
    key: string,
    offset: number,
    length: number | undefined,
    signal?: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const range = length === undefined ? { offset } : { offset, length };
    const answer = await this.#request('GET', key, { op: 'OPEN', ...range }, { signal });
    await refuse(answer);
    const reader = answer.body?.getReader();
    try {
      for (let step = await reader?.read(); step?.done === false; step = await reader?.read()) {
        yield step.value;
      }
    } finally {
      await reader?.cancel().catch(() => undefined);
    }
  }

  /** The server's clock, in milliseconds. */
  async now(): Promise<number> {
    const answer = await this.#request('GET', '', { op: 'GETHOMEDIRECTORY' }, {});
    await answer.body?.cancel();
    return Date.parse(answer.headers.get('date') ?? '');
  }

  /** What went wrong as a typed error. */
  error(doing: string, error: unknown, signal?: AbortSignal): VramError {
    return serviceError(this.name, doing, { error, signal }, () => {
      const exception = error instanceof HdfsRefusal ? error.exception : 'the connection failed';
      const code = BY_EXCEPTION[exception] ?? 'unavailable';
      return { code, reason: exception, context: { exception } };
    });
  }

  async #json(
    method: string,
    key: string | number,
    parameters: Parameters,
    signal?: AbortSignal,
  ): Promise<HdfsAnswer> {
    const answer = await this.#request(method, key, parameters, { signal });
    await refuse(answer);
    const text = await answer.text();
    // A foreign boundary: the fields that are read are optional.
    const result = (text === '' ? {} : JSON.parse(text)) as HdfsAnswer;
    if (result.boolean === false) throw new HdfsRefusal('Refused', answer.status);
    return result;
  }

  #request(
    method: string,
    key: string | number,
    parameters: Parameters,
    init: { redirect?: 'manual'; signal?: AbortSignal | undefined },
  ): Promise<Response> {
    const url = new URL(this.#base);
    url.pathname += this.path(key).split('/').map(encodeURIComponent).join('/');
    for (const [name, value] of Object.entries(parameters)) {
      url.searchParams.set(name, String(value));
    }
    if ('name' in this.#user) url.searchParams.set('user.name', this.#user.name);
    else url.searchParams.set('delegation', this.#user.delegationToken);
    return fetch(url, { method, ...init, signal: init.signal ?? null });
  }
}

interface HdfsAnswer {
  readonly boolean?: boolean;
  readonly FileStatus?: HdfsStatus;
  readonly FileStatuses?: { readonly FileStatus?: readonly HdfsStatus[] };
}

/** @throws HdfsRefusal where the answer is no success. */
async function refuse(answer: Response): Promise<void> {
  if (answer.ok) return;
  throw new HdfsRefusal(exceptionIn(await answer.text(), answer.status), answer.status);
}

/** The exception that an answer names, or its status. */
function exceptionIn(text: string, status: number): string {
  return /"exception"\s*:\s*"(\w+)"/.exec(text)?.[1] ?? `status ${status}`;
}

/** Sends a body of unknown length; gives the answer. */
async function upload(
  url: URL,
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): Promise<{ readonly status: number; readonly text: string }> {
  const send = url.protocol === 'https:' ? https.request : http.request;
  const headers = { 'content-type': 'application/octet-stream' };
  const request = send(url, {
    method: 'PUT',
    headers,
    ...(signal === undefined ? {} : { signal }),
  });
  const answered = new Promise<http.IncomingMessage>((resolve, reject) => {
    request.once('response', resolve);
    request.once('error', reject);
  });
  answered.catch(() => undefined); // awaited below, after the body
  try {
    await pipeline(Readable.from(chunks, { objectMode: false }), request);
  } catch (error) {
    request.destroy();
    throw error;
  }
  const answer = await answered;
  let text = '';
  answer.setEncoding('utf8');
  for await (const part of answer) text += String(part);
  return { status: answer.statusCode ?? 0, text };
}

/** Whether HDFS said that there is no such file or folder. */
export function isMissing(error: unknown): boolean {
  return isRefusal(error, 'FileNotFoundException', 'ParentNotDirectoryException');
}

/** Whether HDFS refused with one of these exceptions. */
export function isRefusal(error: unknown, ...exceptions: readonly string[]): boolean {
  return error instanceof HdfsRefusal && exceptions.includes(error.exception);
}

const BY_EXCEPTION: Readonly<Record<string, VramErrorCode>> = {
  AccessControlException: 'access-denied',
  SecurityException: 'access-denied',
  InvalidToken: 'access-denied',
  'status 401': 'access-denied',
  'status 403': 'access-denied',
  DSQuotaExceededException: 'storage-full',
  NSQuotaExceededException: 'storage-full',
  QuotaExceededException: 'storage-full',
};
