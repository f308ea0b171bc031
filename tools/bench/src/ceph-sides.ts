/**
 * `s3Store` and `radosStore` beside plain loops of aws-sdk, of OpenDAL and of librados over FFI, on
 * one cluster in turn: large blobs one at a time, small ones 16 in flight.
 */
import { readBlob, type BlobStore } from '@vramkit/storage';
import { radosStore } from '@vramkit/storage/rados';
import { s3ClientSettings, s3Store } from '@vramkit/storage/s3';
import {
  awsClient,
  koffiModule,
  plainAws,
  plainOpenDal,
  plainRados,
  undiciSettings,
  type CephPlace,
  type PlainClient,
} from './ceph-rivals.js';
import type { BenchOptions } from './command-line.js';
import { measureInTurn, type Measure } from './measure.js';
import { toResult, type BenchResult } from './report.js';
import { mebibyte, movedPerSecond, sizeName, testData } from './storage-data.js';

const smallBytes = 4096;
const smallBlobs = 64;
const inFlight = 16;

/** Our store as a plain client. */
function asPlain(store: BlobStore, parallelGets: number, lengthBytes: number): PlainClient {
  return {
    put: (key, bytes) => store.put(key, bytes),
    // Whoever reads a large blob knows its size, as the plain loops do, or asks for it.
    get: (key, into) => readBlob(store, key, { parallelGets, lengthBytes, into }),
  };
}

/** Gets of small blobs per second, so many in flight. */
function smallGets(get: (name: string) => Promise<unknown>, count: number): Measure {
  return async () => {
    const begin = performance.now();
    let next = 0;
    const lane = async (): Promise<void> => {
      while (next < count) await get(`small/${(next += 1) % smallBlobs}`);
    };
    await Promise.all(Array.from({ length: inFlight }, lane));
    return count / ((performance.now() - begin) / 1000);
  };
}

interface OurSide {
  readonly store: BlobStore;
  readonly parallelGets: number;
  /**
   * Where large gets go: new memory, which takes as long as a seventh of a get, and has the
   * collector run in the middle of it; or memory that is there, with the rivals that can.
   */
  readonly targets: readonly ('new memory' | 'memory that is there')[];
  /** The store with signatures that cover bodies, and the rivals that sign so. */
  readonly signed?: { readonly store: BlobStore; readonly rivals: readonly string[] };
  /** Gets a small blob, with its size told where the rival is told it. */
  readonly small: (key: string) => Promise<unknown>;
}

/** One of our stores beside its rivals, large and small. */
async function measureSides(
  driver: string,
  { store, parallelGets, targets, signed, small: getSmall }: OurSide,
  rivals: Readonly<Record<string, PlainClient>>,
  { quick, log }: BenchOptions,
): Promise<BenchResult[]> {
  const data = testData((quick ? 16 : 64) * mebibyte);
  const name = { suite: 'storage', driver, better: 'higher', unit: 'MiB/s' } as const;
  const large = { ...name, case: sizeName(data.length) };
  const ours = asPlain(store, parallelGets, data.length);
  const all = Object.entries(rivals);
  const each = (work: (client: PlainClient) => Measure, client = ours, beside = all) =>
    measureInTurn(
      { ours: work(client), peers: Object.fromEntries(beside.map(([peer, c]) => [peer, work(c)])) },
      { runs: 9 },
    );
  const putLarge = (client: PlainClient) =>
    movedPerSecond(data.length, () => client.put('large', data));
  log(`${driver}: ${sizeName(data.length)}`);
  const puts = [toResult({ ...large, metric: 'put' }, await each(putLarge))];
  if (signed !== undefined) {
    const client = asPlain(signed.store, parallelGets, data.length);
    const beside = all.filter(([peer]) => signed.rivals.includes(peer));
    const put = await each(putLarge, client, beside);
    puts.push(toResult({ ...large, metric: 'put, body signed' }, put));
  }
  const gets: BenchResult[] = [];
  for (const target of targets) {
    const into = target === 'new memory' ? undefined : new Uint8Array(data.length);
    const get = await each((client) =>
      movedPerSecond(data.length, () => client.get('large', into)),
    );
    gets.push(toResult({ ...large, metric: `get into ${target}` }, get));
  }
  log(`${driver}: ${sizeName(smallBytes)}`);
  for (const client of [ours, ...Object.values(rivals)]) {
    for (let i = 0; i < smallBlobs; i += 1) {
      await client.put(`small/${i}`, data.subarray(i * smallBytes, (i + 1) * smallBytes));
    }
  }
  const count = quick ? 200 : 1000;
  const smallGet = (client: PlainClient) => (client === ours ? getSmall : client.get);
  const small = await each((client) => smallGets(smallGet(client), count));
  const metric = `gets, ${inFlight} in flight`;
  return [
    ...puts,
    ...gets,
    toResult({ ...name, case: sizeName(smallBytes), unit: '1/s', metric }, small),
  ];
}

/** Through the gateway. */
export async function measureS3(place: CephPlace, options: BenchOptions): Promise<BenchResult[]> {
  const bucket = 'bench';
  const { sdk, s3 } = await awsClient(place);
  await s3.send(new sdk.CreateBucketCommand({ Bucket: bucket }) as never);
  // Ours as `openStore` opens it: a client of one bucket, with the HTTP that is recommended.
  const ourSettings = { ...s3ClientSettings, ...(await undiciSettings()), cacheMiddleware: true };
  const { s3: client } = await awsClient(place, ourSettings);
  const { s3: undici } = await awsClient(place, await undiciSettings());
  const objects = { sdk, client, bucket, prefix: 'ours/' };
  // OpenDAL signs no body; the SDK signs each.
  const store = await s3Store({ ...objects, signBodies: false });
  const signed = { store: await s3Store(objects), rivals: ['aws-sdk', 'aws-sdk, undici'] };
  const rivals = {
    'aws-sdk': plainAws(sdk, s3, bucket),
    'aws-sdk, undici': plainAws(sdk, undici, bucket),
    opendal: await plainOpenDal(place, bucket),
  };
  // Node's HTTP keeps one core busy with one get: where there are two, more in flight are slower.
  const small = (key: string) => readBlob(store, key);
  const results = await measureSides(
    's3',
    { store, parallelGets: 1, targets: ['new memory', 'memory that is there'], signed, small },
    rivals,
    options,
  );
  for (const each of [s3, client, undici]) each.destroy();
  return results;
}

/** Without the gateway. */
export async function measureRados(
  place: CephPlace,
  options: BenchOptions,
): Promise<BenchResult[]> {
  const koffi = await koffiModule();
  const { CEPH_CONF: configFile = '', CEPH_RADOS_POOL: pool = '' } = place;
  await using store = await radosStore({ koffi, configFile, pool });
  const rivals = { 'rados FFI': await plainRados(place, 'plain') };
  // A get of a striped blob has its own parallel reads.
  const small = (key: string) => readBlob(store, key, { lengthBytes: smallBytes });
  return await measureSides(
    'rados',
    { store, parallelGets: 1, targets: ['memory that is there'], small },
    rivals,
    options,
  );
}
