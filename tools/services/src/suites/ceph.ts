/** The S3 adapter on Ceph's RADOS Gateway: a monitor, an OSD and a gateway on this machine. */
import { randomUUID } from 'node:crypto';
import * as sdk from '@aws-sdk/client-s3';
import { readBlob } from '@vramkit/storage';
import { s3Store } from '@vramkit/storage/s3';
import { describeStore, testBytes } from '@vramkit/storage/testing';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { expectOpens } from '../by-address.js';
import { cuttingProxy, expectWholeReads } from '../cut-connection.js';
import { giantBytes, serviceVariable } from '../environment.js';
import { bucket, s3Client as client } from '../stores.js';

// Both ways to speak HTTP, and of signing: what one writes the other reads.
const clients = [await client(), await client({ http: 'node' })] as const;
beforeAll(async () => {
  await clients[0].send(new sdk.CreateBucketCommand({ Bucket: bucket }));
});
afterAll(() => {
  for (const each of clients) each.destroy();
});

describeStore(
  'S3 on Ceph',
  async () => {
    const options = { sdk, bucket, prefix: `${randomUUID()}/`, partBytes: 5 * 2 ** 20 } as const;
    const limits = { maxConditionalBytes: 12 * 2 ** 20 };
    return {
      store: await s3Store({ ...options, ...limits, client: clients[0] }),
      other: await s3Store({ ...options, ...limits, client: clients[1], signBodies: false }),
      reopen: () => s3Store({ ...options, ...limits, client: clients[1] }),
    };
  },
  { describe, it, expect },
  { pageKeys: 1203, raceRounds: 24, steps: 80, giantBytes },
);

describe('S3 on Ceph', () => {
  it('is opened by its address, with credentials as the SDK finds them', async () => {
    vi.stubEnv('AWS_ACCESS_KEY_ID', serviceVariable('CEPH_S3_ACCESS_KEY'));
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', serviceVariable('CEPH_S3_SECRET_KEY'));
    const endpoint = encodeURIComponent(serviceVariable('CEPH_S3_ENDPOINT'));
    await expectOpens(
      `s3://${bucket}/by/address?endpoint=${endpoint}&region=default&signBodies=false`,
    );
    vi.unstubAllEnvs();
  });

  it('finds by asking which conditions this gateway honours', async () => {
    const { capabilities } = await s3Store({ sdk, bucket, client: clients[0] });
    expect(capabilities).toMatchObject({ createIfAbsent: true, compareAndSwap: true });
    expect(capabilities.probed).toEqual(['createIfAbsent', 'compareAndSwap']);
  });

  it('leaves no upload behind when a body fails, and reads many parts at once', async () => {
    const prefix = `${randomUUID()}/`;
    const options = { sdk, bucket, prefix, partBytes: 5 * 2 ** 20 };
    const store = await s3Store({ ...options, client: clients[0] });
    const body = testBytes(23 * 2 ** 20);
    async function* failing(): AsyncGenerator<Uint8Array> {
      yield body;
      throw new RangeError('no more');
    }
    await expect(store.put('parts', failing())).rejects.toBeInstanceOf(RangeError);
    const command = new sdk.ListMultipartUploadsCommand({ Bucket: bucket, Prefix: prefix });
    expect((await clients[0].send(command)).Uploads ?? []).toEqual([]);
    await store.put('parts', body);
    const read = await readBlob(store, 'parts', { parallelGets: 4 });
    expect(Buffer.compare(read, body)).toBe(0);
  });

  it.each(['undici', 'node'] as const)(
    'keeps whole bytes over %s when connections are cut',
    async (http) => {
      using proxy = await cuttingProxy(Number(new URL(serviceVariable('CEPH_S3_ENDPOINT')).port));
      const cut = await client({ endpoint: `http://127.0.0.1:${proxy.port}`, http });
      await expectWholeReads(await s3Store({ sdk, bucket, client: cut }), proxy);
      cut.destroy();
    },
  );

  it('says that credentials are wrong, without the secret', async () => {
    const secret = 'a-wrong-secret-0123456789';
    const wrong = await client({ secretAccessKey: secret });
    const error = await s3Store({ sdk, bucket, client: wrong }).catch((e: unknown) => e);
    wrong.destroy();
    expect(error).toMatchObject({ code: 'access-denied' });
    const stack = error instanceof Error ? error.stack : '';
    expect(`${stack}${JSON.stringify(error)}`).not.toContain(secret);
  });
});
