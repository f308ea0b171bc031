/**
 * Blobs as objects of Ceph's RADOS, without a gateway, through librados.
 *
 * A blob has a head object under its key: 64 bytes of header and, up to 4 MiB, its data. The data
 * of a larger one is in stripes of 4 MiB in a second namespace, under an id that is new for each
 * put. Stripes are written first; then one write operation publishes the head, which holds exactly
 * if the head is what was read before (`cmpext` over the header) or is absent (an exclusive
 * create). So each replaced blob has one replacer, who removes its stripes; a crash, or an end that
 * nobody knows, leaves at most stripes that no head names, for {@link RadosStore.sweep}.
 *
 *     head    | 'vramkit1' | id, 16 B | size, u64 | striped, u64 | zeros | data, if not striped |
 *     stripe  <id>/<index>/<key> in the namespace '<namespace>.stripes'
 *
 * The version is the id. A get reads header and data in one operation, so both are of one moment.
 * Listing reads all names of the namespace and sorts them: RADOS keeps them by hash. Module and
 * library are the caller's: npm `koffi`, Debian's librados2.
 */
import { randomBytes } from 'node:crypto';
import { checkInteger, fail, throwIfAborted } from '@vramkit/core';
import { chunksOf, inParts } from '../blob-body.js';
import {
  checkInto,
  checkKey,
  checkPrefix,
  checkRange,
  compareKeys,
  isKey,
  memoryFor,
  rangeEnd,
} from '../blob-key.js';
import type {
  BlobBody,
  BlobInfo,
  CallOptions,
  GetOptions,
  ListOptions,
  OwnedBlobStore,
  PutOptions,
  StoreCapabilities,
} from '../blob-store.js';
import { chunkPool, newChunk } from '../chunk-pool.js';
import { inOrder, inParallel } from '../parallel.js';
import { conflictError, failNotFound, lostCondition, mayBeApplied } from '../store-error.js';
import { decodeHeader, encodeHeader, HEADER_BYTES, whole, type Header } from './rados-header.js';
import { RadosCluster, type Koffi, type RadosPool } from './rados-calls.js';

export type { Koffi } from './rados-calls.js';

/** Options of {@link radosStore}. */
export interface RadosStoreOptions {
  /** The module `koffi`. */
  readonly koffi: Koffi;
  /** Path of `ceph.conf`, which names monitors and keyring. */
  readonly configFile: string;
  /** Who connects: `client.<user>`. Default: 'admin'. */
  readonly user?: string | undefined;
  /** A pool that exists. */
  readonly pool: string;
  /** Keeps stores of one pool apart. Default: 'vramkit'. */
  readonly namespace?: string | undefined;
  /** Name or path of the library. Default: 'librados.so.2'. */
  readonly library?: string | undefined;
  /** Seconds after which an operation that no OSD answers fails. Default: 30. */
  readonly timeoutSeconds?: number;
}

/** A blob store in a pool; disposing it ends the connection. */
export interface RadosStore extends OwnedBlobStore {
  /**
   * Removes stripes that no head names and that are older than this, by the clock of the OSDs;
   * reads all names of stripes.
   * @returns How many it removed.
   */
  sweep(staleAfterSeconds: number): Promise<number>;
}

const STRIPE_BYTES = 4 * 2 ** 20;
/** What a first read of a blob asks for: most small blobs take one operation. */
const FIRST_BYTES = 2 ** 16;
const IN_FLIGHT = 8;
const LIST_IN_FLIGHT = 16;
const MAX_TRIES = 1000;

/**
 * Connects to a cluster.
 * @throws VramError `not-found` for a missing library, file or pool; `access-denied`; `timeout` or
 * `unavailable` where no monitor answers.
 */
export async function radosStore(options: RadosStoreOptions): Promise<RadosStore> {
  const { koffi, configFile, user = 'admin', pool, library = 'librados.so.2' } = options;
  const { namespace = 'vramkit', timeoutSeconds = 30 } = options;
  const timeout = String(checkInteger('timeoutSeconds', timeoutSeconds, 1, 3600));
  const cluster = new RadosCluster(koffi, library, `rados ${pool}/${namespace}`);
  try {
    await cluster.connect(user, configFile, {
      client_mount_timeout: timeout,
      rados_mon_op_timeout: timeout,
      rados_osd_op_timeout: timeout,
    });
    const heads = cluster.pool(pool, namespace);
    return new PoolStore(cluster, heads, cluster.pool(pool, `${namespace}.stripes`));
  } catch (error) {
    cluster.close();
    throw error;
  }
}

function describe(key: string, { id, sizeBytes }: Header): BlobInfo {
  return { key, sizeBytes, version: id };
}

function stripeName(id: string, index: number, key: string): string {
  return `${id}/${index}/${key}`;
}

class PoolStore implements RadosStore {
  readonly name: string;
  readonly capabilities: StoreCapabilities = {
    createIfAbsent: true,
    compareAndSwap: true,
    maxConditionalBytes: Number.MAX_SAFE_INTEGER,
    maxBlobBytes: Number.MAX_SAFE_INTEGER,
    preferredChunkBytes: STRIPE_BYTES,
    nestedKeys: true,
    durability: 'service',
    probed: [],
  };
  readonly #cluster: RadosCluster;
  readonly #heads: RadosPool;
  readonly #stripes: RadosPool;
  #isDisposed = false;

  constructor(cluster: RadosCluster, heads: RadosPool, stripes: RadosPool) {
    this.name = cluster.name;
    this.#cluster = cluster;
    this.#heads = heads;
    this.#stripes = stripes;
  }

  async put(key: string, body: BlobBody, options: PutOptions = {}): Promise<BlobInfo> {
    checkKey(key);
    throwIfAborted(options.signal);
    const id = randomBytes(16);
    const hex = id.toString('hex');
    const parts = inParts(chunksOf(body, options), STRIPE_BYTES);
    let stripes = 0;
    let sizeBytes = 0;
    let isPublishing = false;
    /** What is there, asked while stripes are written. */
    let known: Promise<Header | undefined> | undefined;
    try {
      const first = (await parts.next()).value ?? new Uint8Array(0);
      const second = (await parts.next()).value ?? undefined;
      sizeBytes = first.length;
      if (second !== undefined) {
        sizeBytes = 0;
        const all = async function* () {
          yield first;
          yield second;
          yield* parts;
        };
        // An exclusive create needs to know nothing of what is there.
        if (options.condition !== 'absent') known = this.#header(key);
        known?.catch(() => undefined); // heard where it is awaited
        for await (const written of inOrder(all(), IN_FLIGHT, (part) => {
          sizeBytes += part.length;
          return this.#stripes.writeFull(stripeName(hex, stripes++, key), part);
        })) {
          void written;
          throwIfAborted(options.signal);
        }
      }
      const header = encodeHeader(id, sizeBytes, stripes > 0);
      const object = stripes > 0 ? [header] : [header, first];
      isPublishing = true;
      await this.#publish(key, object, options, known);
      return { key, sizeBytes, version: hex };
    } catch (error) {
      // The head may be there although its write failed, or come later: its stripes must stay.
      const mayBeNamed = isPublishing && mayBeApplied(error);
      if (!mayBeNamed) await this.#removeStripes(key, hex, stripes).catch(() => undefined);
      throw error;
    } finally {
      await known?.catch(() => undefined); // nothing of a put outlives it
      await parts.return();
    }
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const { offsetBytes = 0, lengthBytes, version, signal } = options;
    checkRange(offsetBytes, lengthBytes);
    const into = checkInto(options);
    throwIfAborted(signal);
    // A range that ends behind the first stripe is of a striped blob, whose head has no data.
    const isStriped = offsetBytes + (lengthBytes ?? 0) > STRIPE_BYTES;
    const most = isStriped ? 0 : (lengthBytes ?? FIRST_BYTES);
    const read =
      (await this.#read(checkKey(key), offsetBytes, most, into)) ?? failNotFound(this.name, key);
    const header = whole(key, read.header);
    if (version !== undefined && version !== header.id) {
      throw conflictError(this.name, key, lostCondition({ version }));
    }
    const end = rangeEnd(key, header.sizeBytes, offsetBytes, lengthBytes);
    if (header.isStriped) {
      yield* this.#readStripes(key, header, end, options);
      return;
    }
    let { data } = read;
    for (let at = offsetBytes; at < end;) {
      throwIfAborted(signal);
      if (data.length === 0) fail('corrupt-data', `'${key}' ends at ${at} B of ${end}`, { key });
      yield data;
      at += data.length;
      if (at >= end) return;
      const next = await this.#read(key, at, end - at, into?.subarray(at - offsetBytes));
      if (next?.header.id !== header.id) throw conflictError(this.name, key, REPLACED);
      ({ data } = next);
    }
  }

  async head(key: string, { signal }: CallOptions = {}): Promise<BlobInfo | undefined> {
    throwIfAborted(signal);
    const header = await this.#header(checkKey(key));
    return header === undefined ? undefined : describe(key, whole(key, header));
  }

  async *list(
    prefix: string,
    options: ListOptions = {},
  ): AsyncGenerator<BlobInfo, void, undefined> {
    const { startAfter = '', limit = Infinity, signal } = options;
    checkPrefix(prefix);
    const keys: string[] = [];
    for await (const key of this.#heads.names()) {
      throwIfAborted(signal);
      if (isKey(key) && key.startsWith(prefix) && compareKeys(key, startAfter) > 0) keys.push(key);
    }
    keys.sort(compareKeys);
    let count = 0;
    if (limit === 0) return;
    // One that is damaged is of 0 bytes: it can be found, and deleted.
    const head = async (key: string): Promise<BlobInfo | undefined> => {
      const header = await this.#header(key);
      return header === undefined ? undefined : describe(key, header);
    };
    for await (const info of inOrder(keys, LIST_IN_FLIGHT, head)) {
      throwIfAborted(signal);
      if (info === undefined) continue; // deleted meanwhile
      yield info;
      if (++count >= limit) return;
    }
  }

  async delete(key: string, { signal }: CallOptions = {}): Promise<void> {
    checkKey(key);
    for (let tries = 1; tries <= MAX_TRIES; tries += 1) {
      throwIfAborted(signal);
      const old = await this.#header(key);
      if (old === undefined) return;
      if (!(await this.#heads.removeIf(key, { begins: old.bytes }))) continue;
      await this.#removeOld(key, old);
      return;
    }
    fail('unavailable', `'${key}' of ${this.name} was replaced ${MAX_TRIES} times meanwhile`);
  }

  async sweep(staleAfterSeconds: number): Promise<number> {
    const probe = `probe/${randomBytes(8).toString('hex')}`;
    await this.#stripes.writeFull(probe, new Uint8Array(1));
    const now = (await this.#stripes.writtenAt(probe)) ?? 0;
    await this.#stripes.remove(probe);
    let count = 0;
    for await (const name of this.#stripes.names()) {
      const [, id = '', key] = /^([0-9a-f]{32})\/\d+\/(.*)$/s.exec(name) ?? [];
      const writtenAt = await this.#stripes.writtenAt(name);
      if (writtenAt === undefined || now - writtenAt < staleAfterSeconds) continue;
      const head = key === undefined ? undefined : await this.#header(key);
      if (head?.id === id || head?.id === '') continue; // of a damaged one nobody knows
      await this.#stripes.remove(name);
      count += 1;
    }
    return count;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isDisposed) return;
    this.#isDisposed = true;
    await this.#cluster.drain();
    this.#heads.close();
    this.#stripes.close();
    this.#cluster.close();
  }

  async #header(key: string): Promise<Header | undefined> {
    const read = await this.#heads.read(key, [{ offset: 0, length: HEADER_BYTES }]);
    return read?.[0] === undefined ? undefined : decodeHeader(read[0]);
  }

  /** The header, and data where it is in the head. */
  async #read(key: string, offset: number, length: number, into: Uint8Array | undefined) {
    const [header, data] =
      (await this.#heads.read(key, [
        { offset: 0, length: HEADER_BYTES },
        { offset: HEADER_BYTES + offset, length, into },
      ])) ?? [];
    if (header === undefined || data === undefined) return undefined;
    return { header: decodeHeader(header), data };
  }

  /** Replaces the head that was read, again where another put came between. */
  async #publish(
    key: string,
    object: readonly Uint8Array[],
    { condition, signal }: PutOptions,
    known: Promise<Header | undefined> | undefined,
  ): Promise<void> {
    let found = known;
    for (let tries = 1; tries <= MAX_TRIES; tries += 1) {
      throwIfAborted(signal);
      const old = condition === 'absent' ? undefined : await (found ?? this.#header(key));
      found = undefined;
      const isLost = typeof condition === 'object' && old?.id !== condition.version;
      const begins = old === undefined ? 'absent' : { begins: old.bytes };
      if (!isLost && (await this.#heads.write(key, object, begins))) {
        if (old !== undefined) await this.#removeOld(key, old);
        return;
      }
      if (condition === undefined) continue;
      throw conflictError(this.name, key, lostCondition(condition));
    }
    fail('unavailable', `'${key}' of ${this.name} was replaced ${MAX_TRIES} times meanwhile`);
  }

  /** Removes what a replaced head named; what fails here is left to a sweep. */
  async #removeOld(key: string, { id, sizeBytes, isStriped }: Header): Promise<void> {
    const stripes = isStriped ? Math.ceil(sizeBytes / STRIPE_BYTES) : 0;
    await this.#removeStripes(key, id, stripes).catch(() => undefined);
  }

  async #removeStripes(key: string, id: string, count: number): Promise<void> {
    await inParallel(count, IN_FLIGHT, (i) => this.#stripes.remove(stripeName(id, i, key)));
  }

  async *#readStripes(
    key: string,
    { id, sizeBytes }: Header,
    end: number,
    { offsetBytes: begin = 0, ...options }: GetOptions,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const into = memoryFor(options, end - begin);
    const lend = options.lend === true && into === undefined;
    const first = Math.floor(begin / STRIPE_BYTES);
    const count = end === begin ? 0 : Math.ceil(end / STRIPE_BYTES) - first;
    const indexes = Array.from({ length: count }, (_, i) => first + i);
    const read = async (index: number): Promise<Uint8Array> => {
      const offset = Math.max(0, begin - index * STRIPE_BYTES);
      const length = Math.min(STRIPE_BYTES, end - index * STRIPE_BYTES) - offset;
      const name = stripeName(id, index, key);
      const at = index * STRIPE_BYTES + offset - begin;
      const place = into?.subarray(at, at + length) ?? newChunk(length, lend);
      const part = await this.#stripes.readOne(name, offset, place);
      if (part === undefined) throw conflictError(this.name, key, REPLACED);
      if (part.length === length) return part;
      return fail('corrupt-data', `stripe ${index} of '${key}' is short`, { key, sizeBytes });
    };
    for await (const part of inOrder(indexes, IN_FLIGHT, read)) {
      throwIfAborted(options.signal);
      yield part;
      if (lend) chunkPool.give(part);
    }
  }
}

const REPLACED = 'was replaced or deleted while it was read';
