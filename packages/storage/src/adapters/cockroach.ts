/**
 * Blobs in CockroachDB or PostgreSQL: manifests under serialisable transactions, bytes in rows.
 *
 * Tables: `vramkit_chunk (id, part)` holds at most 512 KiB a row, under a random id per put, so
 * writes spread over ranges; `vramkit_blob` maps a key to the id and size of its latest put;
 * `vramkit_pending` names ids whose rows may be garbage: puts on their way and replaced blobs.
 * A body up to 2 MiB is one transaction; a larger one inserts rows in several and publishes in a
 * last one. Garbage of dead writers is removed when a store is opened a day later. Keys are stored
 * as the bytes of their UTF-8, whose order is the order of keys under any collation.
 *
 * The SQL is the common part of both databases. Serialisation failures (40001, and 40P01 on
 * PostgreSQL) run the transaction again after a random wait. When the answer to a COMMIT is lost
 * (40003, or a broken connection) the manifest is read: with this put's id it was applied, else
 * nobody knows and the error is `unavailable`.
 *
 * The driver is the caller's pool of npm `pg`. Its results are text; bytes come as base64, a third
 * smaller than hex. Never set `binary: true` there: version 8 corrupts bytea with it. Sources:
 * CockroachDB's documentation on transaction retries and on the size of BYTES values.
 */
import { randomUUID } from 'node:crypto';
import { throwIfAborted } from '@vramkit/core';
import { chunksOf, inParts } from '../blob-body.js';
import { checkKey, checkPrefix, checkRange, rangeEnd } from '../blob-key.js';
import type {
  BlobBody,
  BlobInfo,
  BlobStore,
  CallOptions,
  GetOptions,
  ListOptions,
  PutCondition,
  PutOptions,
  StoreCapabilities,
} from '../blob-store.js';
import { conflictError, failNotFound, lostCondition, mayBeApplied } from '../store-error.js';
import { PgTransactions, type PgPool, type PgRun } from './pg-transactions.js';

export type { PgClient, PgPool, PgResult } from './pg-transactions.js';

/** Options of {@link cockroachStore}. */
export interface CockroachStoreOptions {
  /** An open pool of npm `pg`, with a listener for its `error` event; its owner ends it. */
  readonly pool: PgPool;
  /** Numbers in [0, 1), for waits between tries; `Math.random` fits. */
  readonly random: () => number;
  /** Most tries of a transaction that fails to serialise. Default: 30. */
  readonly tries?: number;
}

/** A {@link BlobStore} in a database, and which one answers. */
export interface CockroachStore extends BlobStore {
  /** Found by `SHOW crdb_version`, which only CockroachDB knows. */
  readonly database: 'cockroachdb' | 'postgresql';
}

const PART_BYTES = 2 ** 19;
const PARTS_PER_STATEMENT = 4;
const PAGE_ROWS = 500;
const GARBAGE_BATCH = 64;

const SCHEMA = [
  `CREATE TABLE IF NOT EXISTS vramkit_blob (
     key BYTEA PRIMARY KEY, id UUID NOT NULL, size INT8 NOT NULL)`,
  `CREATE TABLE IF NOT EXISTS vramkit_chunk (
     id UUID NOT NULL, part INT4 NOT NULL, bytes BYTEA NOT NULL, PRIMARY KEY (id, part))`,
  `CREATE TABLE IF NOT EXISTS vramkit_pending (
     id UUID PRIMARY KEY, begun TIMESTAMPTZ NOT NULL DEFAULT now())`,
];

/**
 * Opens a store in a database; makes its tables where they are missing.
 * @throws VramError `access-denied` or `unavailable` where the database refuses or does not answer.
 */
export async function cockroachStore(options: CockroachStoreOptions): Promise<CockroachStore> {
  const { pool, random, tries = 30 } = options;
  const transactions = new PgTransactions(pool, random, tries);
  const database = await transactions.detect();
  const store = new SqlStore(transactions, database);
  for (const statement of SCHEMA) await transactions.define(statement);
  await store.sweep();
  return store;
}

interface Row {
  readonly key: Uint8Array;
  readonly id: string;
  /** INT8 comes as text. */
  readonly size: string;
}

class SqlStore implements CockroachStore {
  readonly name: string;
  readonly capabilities: StoreCapabilities = {
    createIfAbsent: true,
    compareAndSwap: true,
    maxConditionalBytes: Number.MAX_SAFE_INTEGER,
    maxBlobBytes: Number.MAX_SAFE_INTEGER,
    preferredChunkBytes: PART_BYTES * PARTS_PER_STATEMENT,
    nestedKeys: true,
    durability: 'service',
    probed: [],
  };
  readonly #transactions: PgTransactions;

  constructor(
    transactions: PgTransactions,
    readonly database: 'cockroachdb' | 'postgresql',
  ) {
    this.name = database;
    this.#transactions = transactions;
  }

  async put(key: string, body: BlobBody, options: PutOptions = {}): Promise<BlobInfo> {
    checkKey(key);
    throwIfAborted(options.signal);
    const id = randomUUID();
    let sizeBytes = 0;
    let part = 0;
    let isPending = false;
    let waiting: Uint8Array[] = [];
    try {
      for await (const bytes of inParts(chunksOf(body, options), PART_BYTES)) {
        sizeBytes += bytes.length;
        if (waiting.length === PARTS_PER_STATEMENT) {
          const insert = insertParts(id, part, waiting);
          isPending = true;
          await this.#transactions.run(`putting '${key}'`, async (run) => {
            await run('INSERT INTO vramkit_pending (id) VALUES ($1) ON CONFLICT DO NOTHING', [id]);
            await run(insert.text, insert.values);
          });
          part += waiting.length;
          waiting = [];
        }
        waiting.push(bytes);
      }
      const rest = waiting.length > 0 ? insertParts(id, part, waiting) : undefined;
      const row = { key: Buffer.from(key), id, size: String(sizeBytes) };
      const publish = async (run: PgRun): Promise<string | undefined> => {
        if (rest !== undefined) await run(rest.text, rest.values);
        return this.#publish(run, row, options.condition);
      };
      const wasApplied = async (): Promise<boolean> => (await this.#find(key))?.id === id;
      throwIfAborted(options.signal);
      const old = await this.#transactions.run(`putting '${key}'`, publish, wasApplied);
      if (old !== undefined) await this.#removeGarbage(old).catch(() => undefined);
      return describe(row);
    } catch (error) {
      // After an ambiguous end the rows may be published; a sweep tells a day later.
      if (isPending && !mayBeApplied(error)) await this.#removeGarbage(id).catch(() => undefined);
      throw error;
    }
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const { offsetBytes = 0, lengthBytes, version, signal } = options;
    checkRange(offsetBytes, lengthBytes);
    throwIfAborted(signal);
    const row = (await this.#find(checkKey(key))) ?? failNotFound(this.name, key);
    if (version !== undefined && version !== row.id) {
      throw conflictError(this.name, key, lostCondition({ version }));
    }
    const end = rangeEnd(key, Number(row.size), offsetBytes, lengthBytes);
    for (let at = offsetBytes; at < end;) {
      throwIfAborted(signal);
      const part = Math.floor(at / PART_BYTES);
      const from = at - part * PART_BYTES;
      const length = Math.min(PART_BYTES - from, end - at);
      const { rows } = await this.#transactions.query(
        `reading '${key}'`,
        `SELECT encode(substr(bytes, $3, $4), 'base64') AS text
         FROM vramkit_chunk WHERE id = $1 AND part = $2`,
        [row.id, part, from + 1, length], // substr counts from 1
      );
      const [found] = rows as readonly { readonly text: string }[]; // the column that was asked for
      const bytes = Buffer.from(found?.text ?? '', 'base64');
      if (bytes.length !== length) {
        throw conflictError(this.name, key, 'was replaced or deleted while it was read');
      }
      at += length;
      yield new Uint8Array(bytes.buffer, bytes.byteOffset, length);
    }
  }

  async head(key: string, { signal }: CallOptions = {}): Promise<BlobInfo | undefined> {
    checkKey(key);
    throwIfAborted(signal);
    const row = await this.#find(key);
    return row === undefined ? undefined : describe(row);
  }

  async *list(
    prefix: string,
    options: ListOptions = {},
  ): AsyncGenerator<BlobInfo, void, undefined> {
    const { startAfter = '', limit = Infinity, signal } = options;
    checkPrefix(prefix);
    let after: Uint8Array = Buffer.from(startAfter);
    for (let count = 0; count < limit;) {
      throwIfAborted(signal);
      const { rows } = await this.#transactions.query(
        `listing '${prefix}'`,
        `SELECT key, id, size FROM vramkit_blob
         WHERE key >= $1 AND key > $2 ORDER BY key LIMIT $3`,
        [Buffer.from(prefix), after, Math.min(PAGE_ROWS, limit - count)],
      );
      // The columns that were asked for.
      for (const row of rows as readonly Row[]) {
        const info = describe(row);
        if (!info.key.startsWith(prefix)) return;
        count += 1;
        after = row.key;
        yield info;
      }
      if (rows.length === 0) return;
    }
  }

  async delete(key: string, { signal }: CallOptions = {}): Promise<void> {
    checkKey(key);
    throwIfAborted(signal);
    const old = await this.#transactions.run(`deleting '${key}'`, async (run) => {
      const { rows } = await run('DELETE FROM vramkit_blob WHERE key = $1 RETURNING id', [
        Buffer.from(key),
      ]);
      const [row] = rows as readonly Pick<Row, 'id'>[]; // the column that was asked for
      if (row !== undefined) await run(PEND, [row.id]);
      return row?.id;
    });
    if (old !== undefined) await this.#removeGarbage(old).catch(() => undefined);
  }

  /** Removes rows of puts that never ended and of blobs replaced by clients that died then. */
  async sweep(): Promise<void> {
    const { rows } = await this.#transactions.query(
      'sweeping',
      `SELECT id FROM vramkit_pending WHERE begun < now() - INTERVAL '1 day'
         AND id NOT IN (SELECT id FROM vramkit_blob) LIMIT 1000`,
      [],
    );
    // The column that was asked for.
    for (const { id } of rows as readonly Pick<Row, 'id'>[]) await this.#removeGarbage(id);
  }

  async #find(key: string): Promise<Row | undefined> {
    const { rows } = await this.#transactions.query(
      `looking for '${key}'`,
      'SELECT key, id, size FROM vramkit_blob WHERE key = $1',
      [Buffer.from(key)],
    );
    return rows[0] as Row | undefined; // the columns that were asked for
  }

  /** Makes a put visible; gives the id that it replaced, which is garbage from then on. */
  async #publish(
    run: PgRun,
    { key, id, size }: Row,
    condition: PutCondition | undefined,
  ): Promise<string | undefined> {
    const { rows } = await run('SELECT id FROM vramkit_blob WHERE key = $1 FOR UPDATE', [key]);
    const [old] = rows as readonly Pick<Row, 'id'>[]; // the column that was asked for
    if (condition !== undefined) {
      const holds = condition === 'absent' ? old === undefined : old?.id === condition.version;
      if (!holds) throw conflictError(this.name, String(key), lostCondition(condition));
    }
    if (old !== undefined) await run(PEND, [old.id]);
    await run(
      `INSERT INTO vramkit_blob (key, id, size) VALUES ($1, $2, $3)
       ON CONFLICT (key) DO UPDATE SET id = excluded.id, size = excluded.size`,
      [key, id, size],
    );
    await run('DELETE FROM vramkit_pending WHERE id = $1', [id]);
    return old?.id;
  }

  /** In bounded batches, because a transaction's size is. */
  async #removeGarbage(id: string): Promise<void> {
    for (;;) {
      const { rowCount } = await this.#transactions.query(
        'removing garbage',
        `DELETE FROM vramkit_chunk WHERE id = $1 AND part IN
           (SELECT part FROM vramkit_chunk WHERE id = $1 ORDER BY part LIMIT ${GARBAGE_BATCH})`,
        [id],
      );
      if ((rowCount ?? 0) < GARBAGE_BATCH) break;
    }
    await this.#transactions.query(
      'removing garbage',
      'DELETE FROM vramkit_pending WHERE id = $1',
      [id],
    );
  }
}

const PEND = 'INSERT INTO vramkit_pending (id) VALUES ($1) ON CONFLICT DO NOTHING';

function describe({ key, id, size }: Row): BlobInfo {
  // A key may begin with U+FEFF, which is no mark of a byte order there.
  const text = new TextDecoder('utf-8', { ignoreBOM: true }).decode(key);
  return { key: text, sizeBytes: Number(size), version: id };
}

/** One statement for several rows. */
function insertParts(id: string, first: number, parts: readonly Uint8Array[]) {
  const rows = parts.map((_, i) => `($1, ${first + i}, $${i + 2})`).join(', ');
  // The driver sends a Buffer as it is, and any other array as JSON.
  const buffers = parts.map(({ buffer, byteOffset, length }) =>
    Buffer.from(buffer, byteOffset, length),
  );
  const text = `INSERT INTO vramkit_chunk (id, part, bytes) VALUES ${rows}`;
  return { text, values: [id, ...buffers] };
}
