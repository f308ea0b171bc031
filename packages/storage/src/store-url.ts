/**
 * A store from an address, for command lines and configuration files.
 *
 *     ./folder, file:///folder                  posix
 *     memory:                                   memory
 *     sqlite:///folder/file.db                  libsql
 *     s3://bucket/prefix?endpoint=URL&region=R  @aws-sdk/client-s3, credentials as it finds them;
 *                                               @smithy/undici-http-handler where it is installed;
 *                                               &signBodies=true or false
 *     rados://pool/namespace?conf=FILE&user=U   koffi and librados
 *     webhdfs://user@host:9870/folder           HTTP; swebhdfs: HTTPS
 *     postgres://user@host/database             pg; also postgresql, cockroachdb
 *
 * A driver is asked of the caller by its npm name, so that it is the caller's copy:
 * `load: (name) => import(name)`. Errors name the scheme and never the address, which may hold a
 * password.
 */
import { fileURLToPath } from 'node:url';
import { assertArgument, fail } from '@vramkit/core';
import { cockroachStore, type PgPool } from './adapters/cockroach.js';
import { memoryStore } from './adapters/memory.js';
import { posixStore } from './adapters/posix.js';
import { radosStore, type Koffi } from './adapters/rados.js';
import { s3ClientSettings, s3Store, type S3Client, type S3Sdk } from './adapters/s3.js';
import { sqliteStore, type SqliteDatabase } from './adapters/sqlite.js';
import { webHdfsStore } from './adapters/webhdfs.js';
import type { BlobStore, OwnedBlobStore } from './blob-store.js';

/** Options of {@link openStore}. */
export interface OpenStoreOptions {
  /** Imports an npm package of the caller's: `(name) => import(name)`. */
  readonly load: (name: string) => Promise<unknown>;
  /** Numbers in [0, 1), for waits between tries; `Math.random` fits. */
  readonly random: () => number;
}

type Opened = readonly [store: BlobStore, close?: () => unknown];
type Opener = (url: URL, options: OpenStoreOptions) => Promise<Opened>;

const OPENERS: Readonly<Record<string, Opener>> = {
  'memory:': () => Promise.resolve([memoryStore()]),
  'file:': async (url) => [await posixStore({ folder: fileURLToPath(url) })],
  'sqlite:': openSqlite,
  's3:': openS3,
  'rados:': openRados,
  'webhdfs:': (url) => openWebHdfs(url, 'http:'),
  'swebhdfs:': (url) => openWebHdfs(url, 'https:'),
  'postgres:': openSql,
  'postgresql:': openSql,
  'cockroachdb:': openSql,
};

/**
 * Opens the store at an address; disposing it closes the driver's connections too.
 * @param address A URL as the notes of this module list them, or the path of a folder.
 * @throws VramError `invalid-argument` for an address that names no store; `not-found` where the
 * driver is not installed; what the adapter throws.
 */
export async function openStore(
  address: string,
  options: OpenStoreOptions,
): Promise<OwnedBlobStore> {
  // A scheme has two letters at least: 'c:' is a drive.
  const scheme = /^[a-z][a-z0-9+.-]+:/i.exec(address)?.[0].toLowerCase();
  if (scheme === undefined) return owned([await posixStore({ folder: address })]);
  const open = Object.hasOwn(OPENERS, scheme) ? OPENERS[scheme] : undefined;
  const known = Object.keys(OPENERS).join(' ');
  assertArgument(open !== undefined, `no store has addresses of ${scheme} (known: ${known})`);
  const url = URL.canParse(address) ? new URL(address) : undefined;
  assertArgument(url !== undefined, `the address of ${scheme} is no URL`);
  return owned(await open(url, options));
}

function owned([store, close = () => undefined]: Opened): OwnedBlobStore {
  return {
    name: store.name,
    capabilities: store.capabilities,
    put: (...call) => store.put(...call),
    get: (...call) => store.get(...call),
    head: (...call) => store.head(...call),
    list: (...call) => store.list(...call),
    delete: (...call) => store.delete(...call),
    async [Symbol.asyncDispose]() {
      await close();
    },
  };
}

/** A driver, or what to install. */
async function driver({ load }: OpenStoreOptions, name: string): Promise<unknown> {
  try {
    return await load(name);
  } catch {
    return fail('not-found', `npm package '${name}' is needed: npm install ${name}`);
  }
}

/** The default export of a CommonJS driver, or the module itself. */
function defaultOf(module: unknown): unknown {
  return typeof module === 'object' && module !== null && 'default' in module
    ? module.default
    : module;
}

/** The host, and the path without the slashes around it. */
function placeOf(url: URL): { readonly host: string; readonly path: string } {
  const path = decodeURIComponent(url.pathname).replace(/^\/+|\/+$/g, '');
  assertArgument(url.hostname !== '', `an address of ${url.protocol} names a place after '//'`);
  return { host: decodeURIComponent(url.hostname), path };
}

async function openSqlite(url: URL, options: OpenStoreOptions): Promise<Opened> {
  // The class that npm libsql exports, a foreign boundary.
  const Database = defaultOf(await driver(options, 'libsql')) as new (
    path: string,
  ) => SqliteDatabase & { close(): void };
  const file = fileURLToPath(url.href.replace(/^sqlite:/i, 'file:'));
  const database = new Database(file);
  try {
    return [sqliteStore({ database }), () => database.close()];
  } catch (error) {
    database.close();
    throw error;
  }
}

async function openS3(url: URL, options: OpenStoreOptions): Promise<Opened> {
  // The module that npm exports, a foreign boundary.
  const sdk = (await driver(options, '@aws-sdk/client-s3')) as S3Sdk & {
    readonly S3Client: new (settings: object) => S3Client & { destroy(): void };
  };
  const { host: bucket, path } = placeOf(url);
  const endpoint = url.searchParams.get('endpoint');
  const region = url.searchParams.get('region');
  const sign = url.searchParams.get('signBodies');
  const isChoice = sign === null || sign === 'true' || sign === 'false';
  assertArgument(isChoice, 'signBodies of an address of s3: is true or false');
  const signBodies = sign === null ? undefined : sign === 'true';
  const client = new sdk.S3Client({
    ...(endpoint === null ? {} : { endpoint, forcePathStyle: true }),
    ...(region === null ? {} : { region }),
    ...s3ClientSettings,
    ...(await fasterHttp(options)),
    // Kept handlers hold the address of a bucket: right only for a client of one bucket.
    cacheMiddleware: true,
  });
  const prefix = path === '' ? '' : `${path}/`;
  try {
    return [await s3Store({ sdk, client, bucket, prefix, signBodies }), () => client.destroy()];
  } catch (error) {
    client.destroy();
    throw error;
  }
}

/** Settings for the HTTP client of the SDK's authors, where it is installed. */
async function fasterHttp({ load }: OpenStoreOptions): Promise<object> {
  const module = await load('@smithy/undici-http-handler').catch(() => undefined);
  if (module === undefined) return {};
  // The class that npm exports, a foreign boundary.
  const { UndiciHttpHandler } = module as { UndiciHttpHandler: new (options: object) => object };
  return { requestHandler: new UndiciHttpHandler({ dispatcher: { connections: 50 } }) };
}

async function openRados(url: URL, options: OpenStoreOptions): Promise<Opened> {
  const koffi = defaultOf(await driver(options, 'koffi')) as Koffi; // what npm koffi exports
  const { host: pool, path: namespace } = placeOf(url);
  const configFile = url.searchParams.get('conf') ?? '/etc/ceph/ceph.conf';
  const user = url.searchParams.get('user') ?? undefined;
  const store = await radosStore({ koffi, pool, namespace, configFile, user });
  return [store, () => store[Symbol.asyncDispose]()];
}

async function openWebHdfs(url: URL, protocol: 'http:' | 'https:'): Promise<Opened> {
  const { path } = placeOf(url);
  const name = decodeURIComponent(url.username);
  assertArgument(name !== '', `an address of ${url.protocol} names a user before '@'`);
  const server = `${protocol}//${url.host}`;
  return [await webHdfsStore({ url: server, folder: `/${path}`, user: { name } })];
}

async function openSql(url: URL, options: OpenStoreOptions): Promise<Opened> {
  type Pool = PgPool & { on(event: 'error', listener: () => void): unknown; end(): Promise<void> };
  // The module that npm pg exports, a foreign boundary.
  const pg = defaultOf(await driver(options, 'pg')) as {
    readonly Pool: new (settings: object) => Pool;
  };
  const connectionString = url.href.replace(/^cockroachdb:/i, 'postgresql:');
  const pool = new pg.Pool({ connectionString, max: 8 });
  pool.on('error', () => undefined); // idle connections that break are replaced
  try {
    return [await cockroachStore({ pool, random: options.random }), () => pool.end()];
  } catch (error) {
    await pool.end().catch(() => undefined);
    throw error;
  }
}
