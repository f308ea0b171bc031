/**
 * TLS is verified unless the caller's driver was told otherwise, and secrets are in no error, log
 * or trace: a server with a certificate that nobody signed is refused by every adapter that speaks
 * TLS, before it sees a credential. What TLS does not protect, the signature of a put to S3 covers.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { inspect } from 'node:util';
import { TLSSocket } from 'node:tls';
import * as sdk from '@aws-sdk/client-s3';
import pg from 'pg';
import { tracedStore, memoryStore, type BlobStore } from '@vramkit/storage';
import { cockroachStore } from '@vramkit/storage/cockroach';
import { s3ClientSettings, s3Store } from '@vramkit/storage/s3';
import { openStore } from '@vramkit/storage/store-url';
import { webHdfsStore } from '@vramkit/storage/webhdfs';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

const SECRET = 'hunter2-0123456789abcdef';
const folder = mkdtempSync(join(tmpdir(), 'vramkit-tls-'));
const made = spawnSync(
  'openssl',
  [
    ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost'],
    ...['-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
    ...['-keyout', join(folder, 'key.pem'), '-out', join(folder, 'cert.pem')],
  ],
  { stdio: 'ignore' },
);
const hasCertificate = made.status === 0;
if (!hasCertificate) console.log('TLS: NOT TESTED, openssl cannot make a certificate here');

/** Everything that a program could print of an error. */
function textOf(error: unknown): string {
  const stack = error instanceof Error ? `${error.stack}${String(error.cause)}` : '';
  return `${stack}${JSON.stringify(error)}${inspect(error, { depth: 10, showHidden: true })}`;
}

async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error,
  );
}

const printed: string[] = [];
beforeAll(() => {
  for (const name of ['log', 'warn', 'error', 'info', 'debug'] as const) {
    vi.spyOn(console, name).mockImplementation((...words) => void printed.push(inspect(words)));
  }
});
afterAll(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
});

describe.runIf(hasCertificate)('a server whose certificate nobody signed', () => {
  const seen: string[] = [];
  let web: https.Server;
  let sql: Server;
  beforeAll(async () => {
    const key = readFileSync(join(folder, 'key.pem'));
    const cert = readFileSync(join(folder, 'cert.pem'));
    web = https.createServer({ key, cert }, (request, response) => {
      seen.push(`${request.url}${JSON.stringify(request.headers)}`);
      response.end('{}');
    });
    // PostgreSQL begins in the clear: a request for TLS, 'S', then the handshake.
    sql = createServer((socket: Socket) => {
      socket.once('data', () => {
        socket.write('S');
        const secure = new TLSSocket(socket, { isServer: true, key, cert });
        secure.on('data', (data: Buffer) => seen.push(data.toString('latin1')));
        secure.on('error', () => undefined);
      });
      socket.on('error', () => undefined);
    });
    for (const server of [web, sql]) {
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    }
  });
  afterAll(() => {
    web.close();
    sql.close();
  });
  const port = (server: Server): number => (server.address() as AddressInfo).port;

  async function refused(open: Promise<unknown>): Promise<void> {
    const error = await rejection(open);
    expect(error).toMatchObject({ name: 'VramError', code: 'unavailable' });
    expect(textOf(error)).not.toContain(SECRET);
    expect(seen).toEqual([]);
  }

  it('is there, for whoever does not look', async () => {
    await new Promise<void>((resolve, reject) => {
      const options = { port: port(web), rejectUnauthorized: false };
      https.get(options, (answer) => answer.resume().once('end', resolve)).once('error', reject);
    });
    expect(seen.splice(0).length).toBe(1);
    await new Promise<void>((resolve) => {
      const socket = connect(port(sql), '127.0.0.1', () => {
        socket.end();
        resolve();
      });
    });
  });

  it('is refused by the WebHDFS adapter', async () => {
    const user = { delegationToken: SECRET };
    await refused(webHdfsStore({ url: `https://127.0.0.1:${port(web)}`, folder: '/x', user }));
  });

  it('is refused by the S3 adapter', async () => {
    const client = new sdk.S3Client({
      endpoint: `https://127.0.0.1:${port(web)}`,
      region: 'default',
      credentials: { accessKeyId: 'key', secretAccessKey: SECRET },
      forcePathStyle: true,
      maxAttempts: 1,
    });
    await refused(s3Store({ sdk, client, bucket: 'b' }));
    client.destroy();
  });

  it('is refused by the SQL adapter', async () => {
    const pool = new pg.Pool({
      connectionString: `postgres://me:${SECRET}@127.0.0.1:${port(sql)}/db?sslmode=verify-full`,
    });
    await refused(cockroachStore({ pool, random: Math.random }));
    await pool.end();
  });

  it('is refused through an address', async () => {
    const load = (name: string): Promise<unknown> => import(name);
    const options = { load, random: Math.random };
    const sqlPlace = `127.0.0.1:${port(sql)}/db?sslmode=verify-full`;
    await refused(openStore(`postgres://me:${SECRET}@${sqlPlace}`, options));
    await refused(openStore(`swebhdfs://me:${SECRET}@127.0.0.1:${port(web)}/x`, options));
  });
});

describe('a body that is put to S3', () => {
  it.each([
    ['https', undefined, false],
    ['https', true, true],
    ['http', undefined, true],
    ['http', false, false],
  ])('over %s, signBodies %s: its signature covers it is %s', async (protocol, signBodies, is) => {
    const signed: unknown[] = [];
    // What the SDK would send, after it was signed.
    const requestHandler = {
      handle: ({ method, headers }: { method: string; headers: Record<string, string> }) => {
        if (method === 'PUT') signed.push(headers['x-amz-content-sha256'] !== 'UNSIGNED-PAYLOAD');
        const body = Readable.from([Buffer.from('<Done><UploadId>1</UploadId></Done>')]);
        return Promise.resolve({ response: { statusCode: 200, headers: { etag: '"1"' }, body } });
      },
    };
    const client = new sdk.S3Client({
      endpoint: `${protocol}://localhost:1`,
      region: 'default',
      credentials: { accessKeyId: 'key', secretAccessKey: SECRET },
      requestHandler,
      cacheMiddleware: true,
      ...s3ClientSettings,
    });
    // The other store of the client has its own way.
    await s3Store({ sdk, client, bucket: 'b', signBodies: !is });
    expect(new Set(signed.splice(0))).toEqual(new Set([!is]));
    const store = await s3Store({ sdk, client, bucket: 'b', signBodies, partBytes: 5 * 2 ** 20 });
    await store.put('parts', new Uint8Array(6 * 2 ** 20));
    expect(signed.length).toBeGreaterThan(4);
    expect(new Set(signed)).toEqual(new Set([is]));
  });
});

describe('secrets', () => {
  it('are in no error of an address, whichever way it fails', async () => {
    const load = (name: string): Promise<unknown> => import(name);
    const options = { load, random: Math.random };
    for (const address of [
      `postgres://me:${SECRET}@127.0.0.1:1/db`,
      `cockroachdb://me:${SECRET}@127.0.0.1:1/db`,
      `webhdfs://me:${SECRET}@127.0.0.1:1/x`,
      `ftp://me:${SECRET}@127.0.0.1:1/x`,
      `s3://${SECRET} bad`,
      `postgres://me:${SECRET}@[bad/`,
    ]) {
      const error = await rejection(openStore(address, options));
      expect(error, address).toMatchObject({ name: 'VramError' });
      expect(textOf(error)).not.toContain(SECRET);
    }
  });

  it('are in no trace: an event has the call, the key and the code', async () => {
    const events: unknown[] = [];
    const failing: BlobStore = {
      ...memoryStore(),
      put: () => Promise.reject(new Error(`connection to me:${SECRET}@host failed`)),
    };
    const sink = (event: unknown): void => void events.push(event);
    const store = tracedStore(failing, { sink, clock: () => 0 });
    await rejection(store.put('key', new TextEncoder().encode(SECRET)));
    expect(events.length).toBe(1);
    expect(inspect(events, { depth: 10 })).not.toContain(SECRET);
  });

  it('are in nothing that was printed meanwhile', () => {
    expect(printed.join('\n')).not.toContain(SECRET);
  });
});
