/**
 * One blob over several stores, so that several disks or gateways move it at once.
 *
 * Layout: the data in stripes, stripe `i` in store `i mod n` under `stripe/<id>/<i>`, where the id
 * is new for each put; under the blob's own key, in the first store, a small manifest with id, size
 * and stripe size. The manifest is put last, under the put's condition. A replaced blob's stripes
 * are deleted after the new manifest is there; a reader of the old ones is told `conflict`. A
 * crash, a put whose outcome nobody knows, and puts of one key at once leave at most stripes that
 * no manifest names ({@link sweepStripes} removes them).
 *
 * A stripe that is lost or cut is `corrupt-data`, as is a manifest that is damaged; a list gives a
 * blob of such a manifest as of 0 bytes, and it can be replaced and deleted.
 *
 * Cost: head reads a manifest, list reads one per key. A store that is lost takes its stripes with
 * it: striping is for speed; let the stores below replicate.
 */
import { randomUUID } from 'node:crypto';
import { assertArgument, checkInteger, fail, isVramError } from '@vramkit/core';
import { chunksOf, gather, inParts } from '../blob-body.js';
import { checkKey, checkRange, rangeEnd } from '../blob-key.js';
import type {
  BlobBody,
  BlobInfo,
  BlobStore,
  CallOptions,
  Durability,
  GetOptions,
  ListOptions,
  PutOptions,
  StoreCapabilities,
} from '../blob-store.js';
import { inOrder } from '../parallel.js';
import { checkCondition, conflictError, failNotFound, lostCondition } from '../store-error.js';

/** Options of {@link stripedStore}. */
export interface StripeOptions {
  /** Bytes of a stripe, at least 4 KiB. Default: 4 MiB. */
  readonly stripeBytes?: number;
  /** Stripes in flight per store. Default: 2; memory is this times stores times stripe. */
  readonly parallelStripes?: number;
}

interface Manifest {
  readonly id: string;
  readonly sizeBytes: number;
  readonly stripeBytes: number;
}

const STRIPES = 'stripe/';
// Codes of a put of which nobody knows whether it was applied.
const UNKNOWN: readonly string[] = ['timeout', 'unavailable', 'aborted'];

/**
 * A store over several; they stay the caller's, and the order must be the same each time. Its keys
 * must not begin with `stripe/`.
 */
export function stripedStore(
  stores: readonly [BlobStore, ...BlobStore[]],
  options: StripeOptions = {},
): BlobStore {
  const { stripeBytes = 4 * 2 ** 20, parallelStripes = 2 } = options;
  checkInteger('stripeBytes', stripeBytes, 4096);
  checkInteger('parallelStripes', parallelStripes, 1);
  return new StripedStore(stores, stripeBytes, parallelStripes * stores.length);
}

class StripedStore implements BlobStore {
  readonly name: string;
  readonly capabilities: StoreCapabilities;
  readonly #stores: readonly [BlobStore, ...BlobStore[]];
  readonly #stripeBytes: number;
  readonly #width: number;

  constructor(stores: readonly [BlobStore, ...BlobStore[]], stripeBytes: number, width: number) {
    this.name = `stripes of ${stores.map(({ name }) => name).join(', ')}`;
    this.capabilities = {
      ...stores[0].capabilities,
      maxConditionalBytes: Number.MAX_SAFE_INTEGER,
      maxBlobBytes: Number.MAX_SAFE_INTEGER,
      preferredChunkBytes: stripeBytes,
      durability: weakest(stores),
    };
    this.#stores = stores;
    this.#stripeBytes = stripeBytes;
    this.#width = width;
  }

  async put(key: string, body: BlobBody, options: PutOptions = {}): Promise<BlobInfo> {
    const { condition, signal } = options;
    checkKey(key);
    assertArgument(!key.startsWith(STRIPES), `keys that begin with '${STRIPES}' are reserved`);
    checkCondition(this, condition);
    const id = randomUUID();
    let count = 0;
    let sizeBytes = 0;
    let isPublishing = false;
    const write = (stripe: Uint8Array): Promise<unknown> => {
      const index = count++;
      sizeBytes += stripe.length;
      return this.#store(index).put(stripeKey(id, index), stripe, { signal });
    };
    try {
      const stripes = inParts(chunksOf(body, options), this.#stripeBytes);
      const written = inOrder(stripes, this.#width, write);
      while ((await written.next()).done !== true);
      const old = await this.#find(key, options).catch(() => undefined);
      const manifest = { id, sizeBytes, stripeBytes: this.#stripeBytes };
      const text = new TextEncoder().encode(JSON.stringify(manifest));
      isPublishing = true;
      const info = await this.#stores[0].put(key, text, { condition, signal });
      if (old !== undefined) await this.#remove(old.manifest).catch(() => undefined);
      return { ...info, sizeBytes };
    } catch (error) {
      // The manifest may be there although its put failed, or come later: its stripes must stay.
      const isRefused = isVramError(error) && !UNKNOWN.includes(error.code);
      if (!isPublishing || isRefused) {
        const manifest = { id, sizeBytes, stripeBytes: this.#stripeBytes };
        await this.#remove(manifest).catch(() => undefined);
      }
      throw error;
    }
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const { offsetBytes = 0, lengthBytes, version, signal } = options;
    checkKey(key);
    checkRange(offsetBytes, lengthBytes);
    const found = (await this.#find(key, { signal })) ?? failNotFound(this.name, key);
    if (version !== undefined && version !== found.info.version) {
      throw conflictError(this.name, key, lostCondition({ version }));
    }
    const { id, sizeBytes, stripeBytes } = found.manifest;
    const end = rangeEnd(key, sizeBytes, offsetBytes, lengthBytes);
    const read = (index: number): Promise<Uint8Array> | undefined => {
      const from = Math.max(0, offsetBytes - index * stripeBytes);
      const to = Math.min(stripeBytes, end - index * stripeBytes);
      if (to <= from) return undefined;
      const range = { offsetBytes: from, lengthBytes: to - from, signal };
      const stripe = gather(this.#store(index).get(stripeKey(id, index), range));
      stripe.catch(() => undefined); // awaited in order below
      return stripe;
    };
    let next = Math.floor(offsetBytes / stripeBytes);
    const ahead: Promise<Uint8Array>[] = [];
    try {
      for (;;) {
        while (ahead.length < this.#width) {
          const stripe = read(next);
          if (stripe === undefined) break;
          ahead.push(stripe);
          next += 1;
        }
        const stripe = await ahead.shift();
        if (stripe === undefined) return;
        yield stripe;
      }
    } catch (error) {
      const isLost = isVramError(error, 'not-found');
      // The ranges are those of the manifest, so a refused one is that of a cut stripe.
      if (!isLost && !isVramError(error, 'invalid-argument')) throw error;
      const now = await this.#stores[0].head(key, { signal });
      if (now?.version !== found.info.version) {
        throw conflictError(this.name, key, 'was replaced or deleted while it was read');
      }
      fail('corrupt-data', `a stripe of '${key}' is ${isLost ? 'lost' : 'cut'}`, { key });
    } finally {
      await Promise.allSettled(ahead);
    }
  }

  async head(key: string, options: CallOptions = {}): Promise<BlobInfo | undefined> {
    return (await this.#find(checkKey(key), options))?.info;
  }

  async *list(
    prefix: string,
    options: ListOptions = {},
  ): AsyncGenerator<BlobInfo, void, undefined> {
    const { limit = Infinity, ...rest } = options;
    let count = 0;
    if (limit === 0) return;
    for await (const info of this.#stores[0].list(prefix, rest)) {
      if (info.key.startsWith(STRIPES)) continue;
      const damaged = { info: { ...info, sizeBytes: 0 } };
      const found = await this.#find(info.key, options).catch(unlessDamaged(damaged));
      if (found === undefined) continue;
      yield found.info;
      if (++count >= limit) return;
    }
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    const found = await this.#find(checkKey(key), options).catch(unlessDamaged(undefined));
    await this.#stores[0].delete(key, options);
    if (found !== undefined) await this.#remove(found.manifest).catch(() => undefined);
  }

  #store(index: number): BlobStore {
    return this.#stores[index % this.#stores.length] ?? this.#stores[0];
  }

  /** A blob's manifest, and what the first store says of it. */
  async #find(key: string, { signal }: CallOptions) {
    const store = this.#stores[0];
    for (;;) {
      const info = await store.head(key, { signal });
      if (info === undefined) return undefined;
      try {
        const text = await gather(store.get(key, { version: info.version, signal }));
        const manifest = parseManifest(key, text);
        return { manifest, info: { ...info, sizeBytes: manifest.sizeBytes } };
      } catch (error) {
        // Replaced or deleted between the two calls: look again.
        if (!isVramError(error, 'conflict') && !isVramError(error, 'not-found')) throw error;
      }
    }
  }

  async #remove({ id, sizeBytes, stripeBytes }: Manifest): Promise<void> {
    for (let index = 0; index * stripeBytes < sizeBytes; index += 1) {
      await this.#store(index).delete(stripeKey(id, index));
    }
  }
}

function stripeKey(id: string, index: number): string {
  return `${STRIPES}${id}/${index}`;
}

/** What the weakest store gives: a blob is lost with any of its stripes. */
function weakest(stores: readonly BlobStore[]): Durability {
  const all = stores.map(({ capabilities }) => capabilities.durability);
  return (['none', 'synced'] as const).find((each) => all.includes(each)) ?? 'service';
}

/** Throws an error again, unless it is that of a damaged manifest: then `result` stands in. */
function unlessDamaged<Result>(result: Result): (error: unknown) => Result {
  return (error) => {
    if (isVramError(error, 'corrupt-data')) return result;
    throw error;
  };
}

function parseManifest(key: string, bytes: Uint8Array): Manifest {
  try {
    // A foreign boundary: what is not a manifest fails the checks below.
    const manifest = JSON.parse(new TextDecoder().decode(bytes)) as Manifest;
    checkInteger('sizeBytes', manifest.sizeBytes);
    checkInteger('stripeBytes', manifest.stripeBytes, 1);
    checkKey(manifest.id);
    return manifest;
  } catch {
    return fail('corrupt-data', `'${key}' is no manifest of stripes`, { key });
  }
}

/**
 * Deletes stripes that no manifest names, left by puts that were killed. Run it while nobody puts.
 * @returns How many it deleted.
 */
export async function sweepStripes(stores: readonly [BlobStore, ...BlobStore[]]): Promise<number> {
  const ids = new Set<string>();
  for await (const { key } of stores[0].list('')) {
    if (key.startsWith(STRIPES)) continue;
    ids.add(parseManifest(key, await gather(stores[0].get(key))).id);
  }
  let count = 0;
  for (const store of stores) {
    for await (const { key } of store.list(STRIPES)) {
      if (ids.has(key.split('/')[1] ?? '')) continue;
      await store.delete(key);
      count += 1;
    }
  }
  return count;
}
