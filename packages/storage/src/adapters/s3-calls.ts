/**
 * The calls of S3 that the store uses, over the caller's copy of `@aws-sdk/client-s3`.
 *
 * The types describe the part of the SDK that is used, so that this package does not depend on it.
 * Errors keep the service's own name and status; its request, which holds the signature, stays out.
 */
import { VramError, type VramErrorCode } from '@vramkit/core';
import type { BlobInfo } from '../blob-store.js';
import { codeOf, serviceError } from '../store-error.js';

/** A client of the SDK: it sends what the SDK's commands describe. */
export interface S3Client {
  send(command: never, options?: { abortSignal?: AbortSignal }): Promise<unknown>;
}

type Command<Input> = new (input: Input & { Bucket: string }) => object;
type Keyed = { Key: string };
type Upload = Keyed & { UploadId: string };
type PutInput = Keyed & { Body: Uint8Array; IfMatch?: string; IfNoneMatch?: string };
type GetInput = Keyed & { Range?: string; IfMatch?: string };
type ListInput = { Prefix: string; StartAfter?: string; MaxKeys: number };
type PartInput = Upload & { PartNumber: number; Body: Uint8Array };
type DoneInput = Upload & { MultipartUpload: { Parts: { ETag: string; PartNumber: number }[] } };

/** The part of the module `@aws-sdk/client-s3` that the store uses. */
export interface S3Sdk {
  readonly PutObjectCommand: Command<PutInput>;
  readonly GetObjectCommand: Command<GetInput>;
  readonly HeadObjectCommand: Command<Keyed>;
  readonly DeleteObjectCommand: Command<Keyed>;
  readonly ListObjectsV2Command: Command<ListInput>;
  readonly CreateMultipartUploadCommand: Command<Keyed>;
  readonly UploadPartCommand: Command<PartInput>;
  readonly CompleteMultipartUploadCommand: Command<DoneInput>;
  readonly AbortMultipartUploadCommand: Command<Upload>;
}

/** The part of an SDK's command that decides how its request is signed. */
interface SignedCommand {
  readonly middlewareStack: {
    add(
      middleware: (next: (args: S3Request) => Promise<unknown>) => typeof next,
      options: { readonly step: 'build'; readonly name: string },
    ): void;
  };
}

interface S3Request {
  readonly request: { readonly protocol: string; readonly headers: Record<string, string> };
}

/**
 * A command whose signature covers the body or leaves it out.
 * @param signBodies Default: it is left out where TLS protects it.
 */
function signed<Input>(command: Command<Input>, signBodies?: boolean): Command<Input> {
  if (signBodies === true) return command; // as the SDK does it
  // A class of its own: a client that keeps its handlers keeps one for each class.
  return class extends command {
    constructor(input: Input & { Bucket: string }) {
      super(input);
      const { middlewareStack } = this as unknown as SignedCommand; // every command of the SDK
      const leaveOut = (next: (args: S3Request) => Promise<unknown>) => (args: S3Request) => {
        const { protocol, headers } = args.request;
        const isSigned = signBodies === undefined && protocol !== 'https:';
        if (!isSigned) headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD';
        return next(args);
      };
      middlewareStack.add(leaveOut, { step: 'build', name: 'leaveOutBody' });
    }
  };
}

interface S3Body extends AsyncIterable<Uint8Array> {
  on(event: 'data', listener: (chunk: Uint8Array) => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  on(event: 'end' | 'close', listener: () => void): unknown;
  destroy(): unknown;
}

/** An object that is being read. */
export interface S3Found {
  readonly body: S3Body;
  /** Bytes that the service will send. */
  readonly sizeBytes: number;
}

/** Where the objects are, and how what is put there is signed. */
interface S3Place {
  readonly bucket: string;
  readonly prefix: string;
  readonly signBodies: boolean | undefined;
}

/** Calls on one bucket below one prefix. */
export class S3Calls {
  readonly name: string;
  readonly #sdk: S3Sdk;
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;
  readonly #Put: Command<PutInput>;
  readonly #PutPart: Command<PartInput>;

  constructor(sdk: S3Sdk, client: S3Client, { bucket, prefix, signBodies }: S3Place) {
    this.name = `s3 ${bucket}/${prefix}`;
    this.#Put = signed(sdk.PutObjectCommand, signBodies);
    this.#PutPart = signed(sdk.UploadPartCommand, signBodies);
    this.#sdk = sdk;
    this.#client = client;
    this.#bucket = bucket;
    this.#prefix = prefix;
  }

  /** One PutObject; gives the ETag. */
  async put(
    key: string,
    Body: Uint8Array,
    headers: { IfMatch?: string; IfNoneMatch?: string },
    signal?: AbortSignal,
  ): Promise<string> {
    const input = { ...this.#at(key), Body, ...headers };
    const { ETag } = await this.#send(new this.#Put(input), signal);
    return bareTag(ETag);
  }

  async get(key: string, Range?: string, version?: string, signal?: AbortSignal): Promise<S3Found> {
    const command = new this.#sdk.GetObjectCommand({
      ...this.#at(key),
      ...(Range === undefined ? {} : { Range }),
      ...(version === undefined ? {} : { IfMatch: `"${bareTag(version)}"` }),
    });
    const { Body, ContentLength } = await this.#send(command, signal);
    if (Body === undefined) throw new VramError('unavailable', `${this.name} sent no body`);
    // A body that is destroyed before its end may say so once nobody listens any more.
    Body.on('error', () => undefined);
    return { body: Body, sizeBytes: ContentLength ?? 0 };
  }

  /** The bytes of an object that is being read; an early end is an error. */
  async *chunks(
    doing: string,
    { body }: S3Found,
    wantedBytes: number,
    signal?: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    let got = 0;
    try {
      for await (const chunk of body) {
        got += chunk.length;
        yield new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length);
      }
    } catch (error) {
      throw this.error(doing, error, signal);
    } finally {
      if (got < wantedBytes) body.destroy();
    }
    this.#checkWhole(doing, got, wantedBytes);
  }

  /** The same into memory of its size: listening costs less than a turn of the queue per chunk. */
  async fill(
    doing: string,
    { body }: S3Found,
    into: Uint8Array,
    signal?: AbortSignal,
  ): Promise<void> {
    let got = 0;
    const closed = new Promise<void>((resolve, reject) => {
      body.on('data', (chunk) => {
        if (got + chunk.length <= into.length) into.set(chunk, got);
        got += chunk.length;
      });
      body.on('error', reject);
      body.on('end', resolve);
      body.on('close', resolve); // a body that was cut has no end
    });
    await closed.catch((error: unknown) => {
      throw this.error(doing, error, signal);
    });
    this.#checkWhole(doing, got, into.length);
  }

  #checkWhole(doing: string, got: number, wanted: number): void {
    if (got === wanted) return;
    throw new VramError('unavailable', `${this.name}, ${doing}: ${got} of ${wanted} B came`, {
      retryable: true,
    });
  }

  async head(key: string, signal?: AbortSignal): Promise<{ sizeBytes: number; version: string }> {
    const command = new this.#sdk.HeadObjectCommand(this.#at(key));
    const { ETag, ContentLength } = await this.#send(command, signal);
    return { sizeBytes: ContentLength ?? 0, version: bareTag(ETag) };
  }

  async delete(key: string, signal?: AbortSignal): Promise<void> {
    await this.#send(new this.#sdk.DeleteObjectCommand(this.#at(key)), signal);
  }

  /** One page; an empty one is the last. */
  async list(
    prefix: string,
    startAfter: string | undefined,
    MaxKeys: number,
    signal?: AbortSignal,
  ): Promise<BlobInfo[]> {
    const after = startAfter === undefined ? {} : { StartAfter: this.#prefix + startAfter };
    const command = new this.#sdk.ListObjectsV2Command({
      Bucket: this.#bucket,
      Prefix: this.#prefix + prefix,
      MaxKeys,
      ...after,
    });
    const { Contents = [] } = await this.#send(command, signal);
    return Contents.map(({ Key = '', Size = 0, ETag }) => ({
      key: Key.slice(this.#prefix.length),
      sizeBytes: Size,
      version: bareTag(ETag),
    }));
  }

  async beginUpload(key: string): Promise<string> {
    const command = new this.#sdk.CreateMultipartUploadCommand(this.#at(key));
    const { UploadId } = await this.#send(command).catch((error: unknown) => {
      throw this.error(`putting '${key}'`, error);
    });
    return UploadId ?? '';
  }

  async putPart(
    key: string,
    UploadId: string,
    PartNumber: number,
    Body: Uint8Array,
    signal?: AbortSignal,
  ): Promise<string> {
    const input = { ...this.#at(key), UploadId, PartNumber, Body };
    const sent = this.#send(new this.#PutPart(input), signal);
    const { ETag } = await sent.catch((error: unknown) => {
      throw this.error(`putting '${key}'`, error, signal);
    });
    return bareTag(ETag);
  }

  async completeUpload(
    key: string,
    UploadId: string,
    tags: readonly string[],
    signal?: AbortSignal,
  ): Promise<string> {
    const Parts = tags.map((tag, index) => ({ ETag: `"${tag}"`, PartNumber: index + 1 }));
    const input = { ...this.#at(key), UploadId, MultipartUpload: { Parts } };
    const sent = this.#send(new this.#sdk.CompleteMultipartUploadCommand(input), signal);
    const { ETag } = await sent.catch((error: unknown) => {
      throw this.error(`putting '${key}'`, error, signal);
    });
    return bareTag(ETag);
  }

  async abortUpload(key: string, UploadId: string): Promise<void> {
    await this.#send(new this.#sdk.AbortMultipartUploadCommand({ ...this.#at(key), UploadId }));
  }

  /** An error of the SDK as a typed one. */
  error(doing: string, error: unknown, signal?: AbortSignal): VramError {
    return serviceError(this.name, doing, { error, signal }, () => {
      const status = statusOf(error);
      const service = error instanceof Error ? codeOf(error) || error.name : 'failed';
      const reason = `${service} ${status ?? ''}`.trimEnd();
      const isLate = error instanceof Error && error.name === 'TimeoutError';
      return {
        code: isLate ? 'timeout' : codeFor(status, service),
        reason,
        context: { status, service },
      };
    });
  }

  #at(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: this.#prefix + key };
  }

  async #send(command: object, signal?: AbortSignal): Promise<S3Answer> {
    // A client that keeps its handlers makes new ones where there are options, even without one.
    const options = signal === undefined ? undefined : { abortSignal: signal };
    // The client and the command come from one SDK; their types are not known here.
    return (await this.#client.send(command as never, options)) as S3Answer;
  }
}

/** Fields of the answers that are read, whichever command they belong to. */
interface S3Answer {
  readonly ETag?: string;
  readonly ContentLength?: number;
  readonly Body?: S3Body;
  readonly UploadId?: string;
  readonly Contents?: readonly {
    readonly Key?: string;
    readonly Size?: number;
    readonly ETag?: string;
  }[];
}

/** An ETag without its quotes. */
export function bareTag(tag: string | undefined): string {
  return (tag ?? '').replaceAll('"', '');
}

/** The HTTP status of an error of the SDK. */
function statusOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('$metadata' in error)) return undefined;
  const metadata = error.$metadata;
  if (typeof metadata !== 'object' || metadata === null) return undefined;
  const status = 'httpStatusCode' in metadata ? metadata.httpStatusCode : undefined;
  return typeof status === 'number' ? status : undefined;
}

/** Whether an error of the SDK is an answer of that status. */
export function isStatus(error: unknown, status: number): boolean {
  return statusOf(error) === status;
}

// What passes, whatever the status: a service gives some of these with 400, as what cannot be.
const PASSES =
  /^(RequestTimeout$|IncompleteBody|BadDigest|XAmzContentSHA256|SlowDown|Throttling|TooManyReq)/;

function codeFor(status: number | undefined, service: string): VramErrorCode {
  if (PASSES.test(service)) return 'unavailable';
  if (service === 'QuotaExceeded' || status === 507) return 'storage-full';
  if (status === 401 || status === 403) return 'access-denied';
  if (service === 'NoSuchBucket') return 'not-found';
  if (status === 400 || status === 501) return 'unsupported';
  return 'unavailable';
}
