/**
 * Ceph for the benchmark of stores, and the plain loops of other clients over it.
 *
 * The clients are those of tools/services, which are installed on demand outside the workspaces, so
 * they are imported by path; the cluster is started by its script and stopped by it. A client that
 * cannot be had is a rival that failed, with its reason.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Koffi } from '@vramkit/storage/rados';
import type { S3Client, S3Sdk } from '@vramkit/storage/s3';

const services = join(import.meta.dirname, '../../services');

/** Puts and gets whole blobs by name, with as little as the client allows. */
export interface PlainClient {
  put(name: string, bytes: Uint8Array): Promise<unknown>;
  /** @param into Memory of the blob's size, for a client that can read into it. */
  get(name: string, into?: Uint8Array): Promise<{ readonly length: number }>;
}

/** Where a cluster is, as its start script said it. */
export type CephPlace = Readonly<Record<string, string>>;

/** Starts a cluster in a folder. @throws where Ceph is not installed. */
export function startCeph(folder: string): CephPlace {
  const text = execFileSync(join(services, 'bin/ceph-up'), [folder], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const pairs = [...text.matchAll(/^export ([A-Z0-9_]+)=(.*)$/gm)];
  return Object.fromEntries(pairs.map(([, name = '', value = '']) => [name, value]));
}

/** Stops it and removes its folder. */
export function stopCeph(folder: string): void {
  spawnSync(join(services, 'bin/ceph-down'), [folder, '--purge'], { stdio: 'ignore' });
}

async function client(name: string): Promise<unknown> {
  const { resolve } = createRequire(join(services, 'package.json'));
  const module = (await import(pathToFileURL(resolve(name)).href)) as { default?: unknown };
  return module.default ?? module;
}

/** What of the module and of a client is used here, beyond what the adapter uses. */
export interface Sdk extends S3Sdk {
  readonly S3Client: new (settings: object) => S3Client & { destroy(): void };
  readonly CreateBucketCommand: new (input: { Bucket: string }) => object;
}

/** Settings of a client for the HTTP that our store's documents recommend. */
export async function undiciSettings(): Promise<object> {
  const { UndiciHttpHandler } = (await client('@smithy/undici-http-handler')) as {
    UndiciHttpHandler: new (options: object) => object;
  };
  return { requestHandler: new UndiciHttpHandler({ dispatcher: {} }) };
}

/** The SDK and a client of the gateway, with settings beside those of the SDK. */
export async function awsClient(place: CephPlace, settings: object = {}) {
  const sdk = (await client('@aws-sdk/client-s3')) as Sdk; // what npm exports
  const s3 = new sdk.S3Client({
    endpoint: place['CEPH_S3_ENDPOINT'],
    region: place['CEPH_S3_REGION'],
    credentials: {
      accessKeyId: place['CEPH_S3_ACCESS_KEY'],
      secretAccessKey: place['CEPH_S3_SECRET_KEY'],
    },
    forcePathStyle: true,
    maxAttempts: 1,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    ...settings,
  });
  return { sdk, s3 };
}

/** One PutObject, one GetObject gathered into one array. */
export function plainAws(sdk: Sdk, s3: S3Client, bucket: string): PlainClient {
  // Commands and client are of one SDK, whose types are not known here.
  const send = (command: object): Promise<unknown> => s3.send(command as never);
  return {
    put: (Key, Body) => send(new sdk.PutObjectCommand({ Bucket: bucket, Key, Body })),
    async get(Key) {
      const { Body } = (await send(new sdk.GetObjectCommand({ Bucket: bucket, Key }))) as {
        Body: { transformToByteArray(): Promise<Uint8Array> };
      };
      return Body.transformToByteArray();
    },
  };
}

/** OpenDAL's own reader and writer, with parts as large and as many as ours. */
export async function plainOpenDal(place: CephPlace, bucket: string): Promise<PlainClient> {
  const { Operator } = (await client('opendal')) as {
    Operator: new (
      scheme: string,
      options: object,
    ) => {
      write(name: string, bytes: Buffer, options?: object): Promise<void>;
      read(name: string, options?: object): Promise<Buffer>;
    };
  };
  const operator = new Operator('s3', {
    endpoint: place['CEPH_S3_ENDPOINT'],
    region: place['CEPH_S3_REGION'],
    access_key_id: place['CEPH_S3_ACCESS_KEY'],
    secret_access_key: place['CEPH_S3_SECRET_KEY'],
    bucket,
  });
  const parts = { chunk: 2n ** 24n, concurrent: 4 };
  return {
    put: (name, bytes) => {
      const large = bytes.length > 2 ** 24 ? [parts] : [];
      const { buffer, byteOffset, length } = bytes;
      return operator.write(name, Buffer.from(buffer, byteOffset, length), ...large);
    },
    get: (name) => operator.read(name),
  };
}

/** The module of FFI. */
export async function koffiModule(): Promise<Koffi> {
  return (await client('koffi')) as Koffi; // what npm exports
}

const STRIPE = 4 * 2 ** 20;

/** `rados_write_full` and `rados_read` over FFI: stripes of 4 MiB, 8 in flight. */
export async function plainRados(place: CephPlace, namespace: string): Promise<PlainClient> {
  const library = (await koffiModule()).load('librados.so.2');
  const call = (prototype: string) => library.func(prototype);
  const [cluster, io] = [[null], [null]] as [unknown[], unknown[]];
  call('int rados_create2(_Out_ void **c, const char *n, const char *u, uint64_t f)')(
    ...[cluster, 'ceph', 'client.admin', 0],
  );
  call('int rados_conf_read_file(void *c, const char *path)')(cluster[0], place['CEPH_CONF']);
  call('int rados_connect(void *c)')(cluster[0]);
  call('int rados_ioctx_create(void *c, const char *pool, _Out_ void **io)')(
    ...[cluster[0], place['CEPH_RADOS_POOL'], io],
  );
  call('void rados_ioctx_set_namespace(void *io, const char *n)')(io[0], namespace);
  const write = call('int rados_write_full(void *io, const char *o, const void *b, size_t n)');
  const read = call('int rados_read(void *io, const char *o, void *b, size_t n, uint64_t at)');
  const sizes = new Map<string, number>();
  const wait = (of: typeof write, ...values: unknown[]): Promise<number> =>
    new Promise((resolve, reject) => {
      of.async(io[0], ...values, (error: Error | null, result: number) => {
        if (error !== null || result < 0) reject(error ?? new Error(`librados: ${result}`));
        else resolve(result);
      });
    });
  const stripes = async (
    bytes: Uint8Array,
    work: (i: number, part: Uint8Array) => Promise<number>,
  ) => {
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next * STRIPE < bytes.length) {
        const i = next++;
        await work(i, bytes.subarray(i * STRIPE, (i + 1) * STRIPE));
      }
    };
    await Promise.all(Array.from({ length: 8 }, lane));
  };
  return {
    async put(name, bytes) {
      sizes.set(name, bytes.length);
      await stripes(bytes, (i, part) => wait(write, `${name}.${i}`, part, part.length));
    },
    async get(name, into) {
      const bytes = into ?? new Uint8Array(Buffer.allocUnsafeSlow(sizes.get(name) ?? 0).buffer);
      await stripes(bytes, (i, part) => wait(read, `${name}.${i}`, part, part.length, 0));
      return bytes;
    },
  };
}
