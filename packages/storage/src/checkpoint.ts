/**
 * Checkpoints in a blob store: saved whole or not at all, loaded whole or in parts, checked always.
 *
 * Mental model: tensors are cut into shards in the order given. A shard's key has its content's
 * hash, so a save that was interrupted goes on where it was: what is there already is read, and
 * sent again only where it is damaged. The manifest is put last, by one put that needs the key to
 * be absent where the store can demand that. Until then the checkpoint does not exist for
 * {@link Checkpoints.list}, so a crash leaves the previous one and some shards, which
 * {@link Checkpoints.prune} removes.
 *
 * Two savers of one name: the manifest decides, and the one who lost gets `conflict` unless tensors
 * and metadata are equal, in which case its save has succeeded too: saving is idempotent, and
 * saving a checkpoint again repairs its shards.
 *
 * Asynchronous saving: {@link Checkpoints.begin} copies the tensors to the host and returns; the
 * copy is stored while training changes the originals. Reading is by byte range: every chunk that a
 * range touches is read whole and its hash compared. checkpoint-format.ts has the layout.
 */
import { assertArgument, checkInteger, fail, isVramError } from '@vramkit/core';
import { checkKey, compareKeys } from './blob-key.js';
import { chunkPool } from './chunk-pool.js';
import type { BlobStore, CallOptions } from './blob-store.js';
import {
  decodeManifest,
  encodeManifest,
  HASHED_BYTES,
  plainJson,
  sha256Of,
  type CheckpointManifest,
  type CheckpointTensor,
  type StoredShard,
  type StoredTensor,
} from './checkpoint-format.js';
import { hashShard, planShards, storeShard, type PlannedShard } from './checkpoint-shards.js';
import { orCode } from './expected-errors.js';
import { inParallel } from './parallel.js';
import { readBlob, type ReadBlobOptions } from './read-blob.js';
import { openXxh3 } from './xxh3.js';

/** Options of {@link Checkpoints}. */
export interface CheckpointsOptions {
  /** Begins all keys; ends with '/'. Default: 'checkpoints/'. */
  readonly prefix?: string;
  /** A shard is closed once it has so many bytes of tensors. Default: 256 MiB. */
  readonly shardBytes?: number;
  /** Shards, and parts of a load, in flight. Default: 4. */
  readonly parallel?: number;
}

/** Options of {@link Checkpoints.save}. */
export interface SaveOptions extends CallOptions {
  /** Plain JSON, kept in the manifest. Default: empty. */
  readonly metadata?: Readonly<Record<string, unknown>>;
}

/** Options of {@link Checkpoints.read}. */
export interface ReadTensorOptions extends CallOptions {
  /** First byte of the tensor. Default: 0. */
  readonly offsetBytes?: number;
  /** Bytes from there. Default: up to the tensor's end. */
  readonly lengthBytes?: number;
  /** Where the bytes go; of exactly that length. Default: a new array. */
  readonly into?: Uint8Array;
}

const MANIFEST = 'manifest.json';
const INDEX = 'model.safetensors.index.json';

/** Checkpoints below one prefix of a store, which stays the caller's. */
export class Checkpoints {
  readonly #store: BlobStore;
  readonly #prefix: string;
  readonly #shardBytes: number;
  readonly #parallel: number;

  constructor(store: BlobStore, options: CheckpointsOptions = {}) {
    const { prefix = 'checkpoints/', shardBytes = 2 ** 28, parallel = 4 } = options;
    assertArgument(prefix.endsWith('/'), "a prefix ends with '/'");
    checkKey(`${prefix}x`);
    this.#store = store;
    this.#prefix = prefix;
    this.#shardBytes = checkInteger('shardBytes', shardBytes, 1);
    this.#parallel = checkInteger('parallel', parallel, 1, 1024);
  }

  /**
   * Saves tensors under a name without '/', such as 'step-000100'; names order checkpoints. What is
   * there of that name is read and compared; what differs or is missing is put again.
   * @returns The manifest as it is stored.
   * @throws VramError `conflict` where the name is taken by other tensors or metadata;
   * `invalid-argument`; what the store throws.
   */
  async save(
    name: string,
    tensors: Iterable<CheckpointTensor>,
    options: SaveOptions = {},
  ): Promise<CheckpointManifest> {
    const { signal } = options;
    checkName(name);
    const metadata = plainJson(options.metadata ?? {});
    const planned = planShards(tensors, this.#shardBytes);
    const folder = this.#key(name, '');
    const found = await orCode(this.open(name, { signal }), 'not-found', 'corrupt-data');
    const taken = typeof found === 'string' ? undefined : found;
    const shards: StoredShard[] = [];
    // Hashes of one shard at a time, so that the first is written while the next is hashed.
    let turn: Promise<unknown> = Promise.resolve();
    await inParallel(planned.length, this.#parallel, async (index) => {
      const shard = planned[index];
      if (shard === undefined) return;
      const hashing = turn.then(() => hashShard(shard, index, signal));
      turn = hashing.catch(() => undefined);
      const hashed = await hashing;
      shards[index] = hashed;
      if (taken === undefined) await storeShard(this.#store, folder, shard, hashed, signal);
    });
    const manifest: CheckpointManifest = {
      format: 'vramkit-checkpoint',
      formatVersion: 2,
      name,
      shards,
      tensors: Object.fromEntries(locate(planned)),
      metadata,
    };
    const stored = taken ?? (await this.#publish(manifest, found === 'corrupt-data', signal));
    expectSame(stored, manifest);
    // Of a name that was taken nothing was looked at yet; else a prune may have taken shards for
    // leftovers while there was no manifest.
    const known = new Set(taken === undefined ? await this.#keys(folder, signal) : []);
    await inParallel(planned.length, this.#parallel, async (index) => {
      const [shard, hashed] = [planned[index], shards[index]];
      if (shard === undefined || hashed === undefined || known.has(folder + hashed.file)) return;
      await storeShard(this.#store, folder, shard, hashed, signal);
    });
    await this.#store.put(this.#key(name, INDEX), encodeIndex(manifest), { signal });
    return stored;
  }

  /**
   * Copies the tensors, then saves the copy; resolves once the copy is made.
   * @returns `done`, which settles as {@link Checkpoints.save} does; await it before the next.
   */
  begin(
    name: string,
    tensors: Iterable<CheckpointTensor>,
    options: SaveOptions = {},
  ): { readonly done: Promise<CheckpointManifest> } {
    const copies = [...tensors].map((tensor) => ({
      ...tensor,
      bytes: new Uint8Array(tensor.bytes),
    }));
    const done = this.save(name, copies, options);
    done.catch(() => undefined); // the caller's to hear, whenever it awaits
    return { done };
  }

  /**
   * Names that have a manifest, in the order of their UTF-8 bytes. Lists every shard's key, so it
   * is linear in those.
   */
  async list({ signal }: CallOptions = {}): Promise<string[]> {
    const names: string[] = [];
    for (const key of await this.#keys(this.#prefix, signal)) {
      const [name = '', file, more] = key.slice(this.#prefix.length).split('/');
      if (file === MANIFEST && more === undefined) names.push(name);
    }
    // Keys of a store are ordered with the '/' after the name, which comes after '-' and '.'.
    return names.sort(compareKeys);
  }

  /**
   * The manifest of a checkpoint.
   * @throws VramError `not-found`, `corrupt-data`.
   */
  async open(name: string, { signal }: CallOptions = {}): Promise<CheckpointManifest> {
    const key = this.#key(checkName(name), MANIFEST);
    return decodeManifest(key, await readBlob(this.#store, key, { signal }));
  }

  /**
   * The manifest of the last complete checkpoint, or `undefined` where there is none. One whose
   * manifest is damaged does not count.
   */
  async latest(options: CallOptions = {}): Promise<CheckpointManifest | undefined> {
    for (const name of (await this.list(options)).reverse()) {
      const found = await orCode(this.open(name, options), 'corrupt-data');
      if (found !== 'corrupt-data') return found;
    }
    return undefined;
  }

  /**
   * A tensor or a part of one, checked.
   * @throws VramError `not-found` for an unknown tensor; `corrupt-data` naming the shard and the
   * place; `invalid-argument` for a range outside the tensor.
   */
  read(
    manifest: CheckpointManifest,
    tensor: string,
    options?: ReadTensorOptions & { readonly into?: undefined },
  ): Promise<Uint8Array<ArrayBuffer>>;
  /** The same, in the memory of `into`. */
  read(
    manifest: CheckpointManifest,
    tensor: string,
    options?: ReadTensorOptions,
  ): Promise<Uint8Array>;
  async read(
    manifest: CheckpointManifest,
    tensor: string,
    options: ReadTensorOptions = {},
  ): Promise<Uint8Array> {
    const { offsetBytes = 0, signal, into } = options;
    const { shard, place } = find(manifest, tensor);
    const lengthBytes = options.lengthBytes ?? place.sizeBytes - offsetBytes;
    checkInteger('offsetBytes', offsetBytes, 0, place.sizeBytes);
    checkInteger('lengthBytes', lengthBytes, 0, place.sizeBytes - offsetBytes);
    const target = into ?? new Uint8Array(lengthBytes);
    assertArgument(
      target.length === lengthBytes,
      `into has ${target.length} B of ${lengthBytes} B`,
    );
    const xxh3 = await openXxh3();
    const begin = place.offsetBytes + offsetBytes;
    const end = begin + lengthBytes;
    const step = Math.max(1, Math.floor(this.#chunkBytes / HASHED_BYTES)) * HASHED_BYTES;
    const first = Math.floor(begin / HASHED_BYTES) * HASHED_BYTES;
    const count = lengthBytes === 0 ? 0 : Math.ceil((end - first) / step);
    const key = this.#key(manifest.name, shard.file);
    await inParallel(count, this.#parallel, async (index) => {
      const from = first + index * step;
      const until = Math.ceil(Math.min(end, from + step) / HASHED_BYTES) * HASHED_BYTES;
      const to = Math.min(until, shard.sizeBytes);
      const memory = chunkPool.take(to - from);
      const range = { offsetBytes: from, lengthBytes: to - from, signal, into: memory };
      const bytes = await this.#readShard(key, range);
      for (let at = 0; at < bytes.length; at += HASHED_BYTES) {
        const hash = xxh3.hex(bytes.subarray(at, at + HASHED_BYTES));
        if (hash !== shard.xxh3[(from + at) / HASHED_BYTES]) corruptShard(key, from + at);
      }
      const chosen = bytes.subarray(Math.max(0, begin - from), Math.min(bytes.length, end - from));
      target.set(chosen, Math.max(0, from - begin));
      chunkPool.give(memory); // not after a failure: what failed may still be reading into it
    });
    return target;
  }

  /**
   * Reads a whole checkpoint and compares every hash.
   * @throws VramError `corrupt-data` naming the first shard and place that does not fit.
   */
  async verify(manifest: CheckpointManifest, options: CallOptions = {}): Promise<void> {
    await inParallel(manifest.shards.length, this.#parallel, async (index) => {
      const shard = manifest.shards[index];
      if (shard === undefined) return;
      const key = this.#key(manifest.name, shard.file);
      const hash = sha256Of(this.#store.get(key, { ...options, lend: true }));
      if ((await orCode(hash, 'not-found')) !== shard.sha256) corruptShard(key, 0);
    });
  }

  /**
   * Deletes all but the last `keep` complete checkpoints, and before the last one also what saves
   * left that never ended, and checkpoints whose manifest is damaged. A manifest goes before its
   * shards. One process prunes. A save of an earlier name may run: it puts again what went before
   * its manifest was there; only a manifest put within the moment of that deletion loses shards,
   * and saving it once more repairs it.
   * @returns Names whose manifest is gone.
   */
  async prune(options: { readonly keep: number } & CallOptions): Promise<string[]> {
    const { keep, signal } = options;
    checkInteger('keep', keep, 1);
    const names = await this.list({ signal });
    const kept: string[] = [];
    for (const name of [...names].reverse()) {
      if (kept.length === keep) break;
      // One of another version of the format is complete all the same.
      const found = await orCode(this.open(name, { signal }), 'corrupt-data', 'unsupported');
      if (found !== 'corrupt-data') kept.push(name);
    }
    const [last] = kept;
    if (last === undefined) return [];
    // What comes after the last one may be on its way.
    const isOld = (name: string): boolean => compareKeys(name, last) < 0 && !kept.includes(name);
    const gone = names.filter(isOld);
    for (const name of gone) await this.#store.delete(this.#key(name, MANIFEST), { signal });
    const stale = new Map<string, string[]>();
    for (const key of await this.#keys(this.#prefix, signal)) {
      const [name = ''] = key.slice(this.#prefix.length).split('/');
      if (!isOld(name)) continue;
      const others = stale.get(name);
      if (others === undefined) stale.set(name, [key]);
      else others.push(key);
    }
    for (const [name, keys] of stale) {
      const manifest = await this.#store.head(this.#key(name, MANIFEST), { signal });
      if (manifest !== undefined) continue; // its save has ended just now
      for (const key of keys) await this.#store.delete(key, { signal });
    }
    return gone;
  }

  /** Puts the manifest. @returns The one that is there: another's, where another was first. */
  async #publish(
    manifest: CheckpointManifest,
    replace: boolean,
    signal: AbortSignal | undefined,
  ): Promise<CheckpointManifest> {
    const key = this.#key(manifest.name, MANIFEST);
    const { createIfAbsent } = this.#store.capabilities;
    const condition = createIfAbsent && !replace ? 'absent' : undefined;
    const put = this.#store.put(key, encodeManifest(manifest), { condition, signal });
    const lost = (await orCode(put, 'conflict')) === 'conflict';
    return lost ? this.open(manifest.name, { signal }) : manifest;
  }

  async #keys(prefix: string, signal: AbortSignal | undefined): Promise<string[]> {
    const keys: string[] = [];
    for await (const { key } of this.#store.list(prefix, { signal })) keys.push(key);
    return keys;
  }

  get #chunkBytes(): number {
    return this.#store.capabilities.preferredChunkBytes;
  }

  #key(name: string, file: string): string {
    return `${this.#prefix}${name}/${file}`;
  }

  /** A shard that is too short or gone is damage to the checkpoint, not a caller's mistake. */
  async #readShard(
    key: string,
    range: ReadBlobOptions & { readonly offsetBytes: number },
  ): Promise<Uint8Array> {
    try {
      return await readBlob(this.#store, key, range);
    } catch (error) {
      const isGone = isVramError(error, 'not-found') || isVramError(error, 'invalid-argument');
      if (isGone) corruptShard(key, range.offsetBytes);
      throw error;
    }
  }
}

function corruptShard(key: string, offsetBytes: number): never {
  fail('corrupt-data', `'${key}' does not fit its hash at byte ${offsetBytes}`, {
    key,
    offsetBytes,
  });
}

/** A save that is repeated finds its own work; another content under the name is a conflict. */
function expectSame(stored: CheckpointManifest, saved: CheckpointManifest): void {
  const contentOf = ({ shards, metadata }: CheckpointManifest) =>
    JSON.stringify([metadata, ...shards.map(({ sha256 }) => sha256)]);
  if (contentOf(stored) === contentOf(saved)) return;
  const { name } = saved;
  fail('conflict', `checkpoint '${name}' exists already, with other tensors or metadata`, { name });
}

function checkName(name: string): string {
  assertArgument(!name.includes('/'), `a checkpoint's name has no '/', got '${name}'`, { name });
  return checkKey(name);
}

function* locate(planned: readonly PlannedShard[]): Generator<[string, StoredTensor]> {
  for (const [shard, { header, tensors }] of planned.entries()) {
    let offsetBytes = header.length;
    for (const { name, dtype, shape, bytes } of tensors) {
      yield [name, { dtype, shape, shard, offsetBytes, sizeBytes: bytes.length }];
      offsetBytes += bytes.length;
    }
  }
}

function find(manifest: CheckpointManifest, tensor: string) {
  const known = Object.hasOwn(manifest.tensors, tensor) ? manifest.tensors[tensor] : undefined;
  const place =
    known ??
    fail('not-found', `checkpoint '${manifest.name}' has no tensor '${tensor}'`, {
      checkpoint: manifest.name,
      tensor,
    });
  const shard = manifest.shards[place.shard];
  if (shard === undefined) fail('corrupt-data', `'${manifest.name}' has no shard ${place.shard}`);
  return { shard, place };
}

/** The index file that Hugging Face's loaders read beside sharded safetensors. */
function encodeIndex({ shards, tensors }: CheckpointManifest): Uint8Array {
  const map = Object.entries(tensors).map(([name, { shard }]) => [name, shards[shard]?.file]);
  const totalBytes = Object.values(tensors).reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const index = { metadata: { total_size: totalBytes }, weight_map: Object.fromEntries(map) };
  return new TextEncoder().encode(JSON.stringify(index, null, 2));
}
