/**
 * Opens a store of a kind at the services of this run or at a folder, for workers and suites. A
 * driver is imported when it is needed: workers start hundreds of times.
 */
import { join } from 'node:path';
import type { S3Client } from '@aws-sdk/client-s3';
import type { Pool } from 'pg';
import { posixStore, type BlobStore } from '@vramkit/storage';
import { cockroachStore } from '@vramkit/storage/cockroach';
import { radosStore, type RadosStore } from '@vramkit/storage/rados';
import { s3ClientSettings, s3Store } from '@vramkit/storage/s3';
import { sqliteStore } from '@vramkit/storage/sqlite';
import { webHdfsStore } from '@vramkit/storage/webhdfs';
import { serviceVariable } from './environment.js';

/** A kind of store. */
export type StoreKind = 'posix' | 'sqlite' | 'pg' | 's3' | 'rados' | 'webhdfs';

/** An open store and how to close what it stands on. */
export interface OpenStore {
  readonly store: BlobStore;
  readonly close: () => void | Promise<void>;
}

/** The bucket of all suites. */
export const bucket = 'vramkit';

/** What differs between clients of the gateway. */
export interface S3ClientOptions {
  readonly secretAccessKey?: string;
  readonly endpoint?: string;
  /** Default: undici, which the package recommends. */
  readonly http?: 'undici' | 'node';
}

/** A client of the gateway; the layers above it do the retries. */
export async function s3Client(options: S3ClientOptions = {}): Promise<S3Client> {
  const { endpoint = serviceVariable('CEPH_S3_ENDPOINT'), http = 'undici' } = options;
  const { secretAccessKey = serviceVariable('CEPH_S3_SECRET_KEY') } = options;
  const { S3Client } = await import('@aws-sdk/client-s3');
  const { UndiciHttpHandler } = await import('@smithy/undici-http-handler');
  return new S3Client({
    endpoint,
    region: serviceVariable('CEPH_S3_REGION'),
    credentials: { accessKeyId: serviceVariable('CEPH_S3_ACCESS_KEY'), secretAccessKey },
    forcePathStyle: true,
    ...s3ClientSettings,
    ...(http === 'node' ? {} : { requestHandler: new UndiciHttpHandler({ dispatcher: {} }) }),
  });
}

/** A namespace of the cluster's pool. An OSD that is dead is given up soon. */
export async function radosPool(namespace: string): Promise<RadosStore> {
  const { default: koffi } = await import('koffi');
  const configFile = serviceVariable('CEPH_CONF');
  const pool = serviceVariable('CEPH_RADOS_POOL');
  return radosStore({ koffi, configFile, pool, namespace, timeoutSeconds: 6 });
}

/** A pool of the database that hears errors of idle connections. */
export async function pgPool(): Promise<Pool> {
  const { default: pg } = await import('pg');
  const pool = new pg.Pool({ connectionString: serviceVariable('VRAMKIT_PG_URL'), max: 8 });
  pool.on('error', () => undefined);
  return pool;
}

/** @param place A folder, or for a service what its keys begin with or its folder is called. */
export async function openStore(kind: StoreKind, place: string): Promise<OpenStore> {
  switch (kind) {
    case 'posix':
      return { store: await posixStore({ folder: place }), close: () => undefined };
    case 'sqlite': {
      const { default: Database } = await import('libsql');
      const database = new Database(join(place, 'blobs.db'));
      return { store: sqliteStore({ database }), close: () => void database.close() };
    }
    case 'pg': {
      const pool = await pgPool();
      const close = (): Promise<void> => pool.end();
      return { store: await cockroachStore({ pool, random: Math.random }), close };
    }
    case 's3': {
      const sdk = await import('@aws-sdk/client-s3');
      const client = await s3Client();
      const options = { sdk, client, bucket, prefix: `${place}/`, partBytes: 5 * 2 ** 20 };
      return { store: await s3Store(options), close: () => client.destroy() };
    }
    case 'rados': {
      const store = await radosPool(place);
      return { store, close: async () => store[Symbol.asyncDispose]() };
    }
    case 'webhdfs': {
      const url = serviceVariable('HDFS_WEBHDFS_URL');
      const user = { name: serviceVariable('HDFS_USER') };
      const store = await webHdfsStore({ url, folder: `/vramkit/${place}`, user });
      return { store, close: () => undefined };
    }
  }
}
