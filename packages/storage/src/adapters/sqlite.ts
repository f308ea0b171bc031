/**
 * Blobs in one SQLite file: many small blobs in one place, published by transactions.
 *
 * Tables: `vramkit_put` gives each put a number that is never used again; `vramkit_chunk` holds its
 * bytes in rows of at most 1 MiB; `vramkit_blob` maps a key to the number and size of its latest
 * put; `vramkit_store` names the database by a random id. A blob's version is its number and that
 * id, so that two databases share none (a copied file does: it keeps the id). A body up to 4 MiB is
 * one transaction; a larger one fills rows in several and publishes in a last one. Rows of a large
 * blob that was replaced or deleted go afterwards, in steps. Rows that are left, of puts and steps
 * that never ended, are removed when a store is opened a day later.
 *
 * The driver is the caller's: anything that speaks better-sqlite3's language, such as npm `libsql`.
 * Its calls block the thread, so a call begins with a turn of the event loop and gives it another
 * after each MiB of a body and each page of a list. A transaction moves at most 4 MiB, and none is
 * open across an `await`, so that calls on one connection never meet inside one. Opening sets
 * `busy_timeout`, `journal_mode = WAL` and `synchronous = FULL`: a put that resolved is on the
 * disk.
 *
 * Order: SQLite compares text by its bytes, which are UTF-8, so ORDER BY is the order of keys.
 */
import { setImmediate } from 'node:timers/promises';
import { assertInvariant, isVramError, throwIfAborted, VramError } from '@vramkit/core';
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
import { codeOf, conflictError, failNotFound, lostCondition } from '../store-error.js';

/** A prepared statement; parameters come as one array. */
export interface SqliteStatement {
  run(parameters: unknown[]): { readonly lastInsertRowid: number | bigint };
  get(parameters: unknown[]): unknown;
  all(parameters: unknown[]): unknown[];
}

/** The part of better-sqlite3's `Database` that the store uses. */
export interface SqliteDatabase {
  exec(sql: string): unknown;
  prepare(sql: string): SqliteStatement;
}

/** Options of {@link sqliteStore}. */
export interface SqliteStoreOptions {
  /** An open database; whoever opened it closes it after the store's last use. */
  readonly database: SqliteDatabase;
  /** Blocks the thread for so long at most while another process writes. Default: 5,000 ms. */
  readonly busyTimeoutMs?: number;
}

const PART_BYTES = 2 ** 20;
const PARTS_PER_TRANSACTION = 4;
const PARTS_PER_REMOVAL = 16;
const PAGE_ROWS = 256;

const SCHEMA = `
CREATE TABLE IF NOT EXISTS vramkit_put (
  id INTEGER PRIMARY KEY AUTOINCREMENT, begun INTEGER NOT NULL DEFAULT (unixepoch()));
CREATE TABLE IF NOT EXISTS vramkit_chunk (
  id INTEGER NOT NULL, part INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (id, part));
CREATE TABLE IF NOT EXISTS vramkit_blob (
  key TEXT PRIMARY KEY, id INTEGER NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vramkit_store (id TEXT NOT NULL);
INSERT INTO vramkit_store
  SELECT lower(hex(randomblob(8))) WHERE NOT EXISTS (SELECT * FROM vramkit_store);
DELETE FROM vramkit_chunk
  WHERE id IN (SELECT id FROM vramkit_put WHERE begun < unixepoch() - 86400);
DELETE FROM vramkit_put WHERE begun < unixepoch() - 86400;`;

/**
 * A store in an SQLite database; makes its tables where they are missing.
 * @throws VramError `unavailable` where the database is locked or damaged.
 */
export function sqliteStore(options: SqliteStoreOptions): BlobStore {
  const { database, busyTimeoutMs = 5000 } = options;
  return translated('opening it', () => {
    // First: the change to WAL waits for other processes only with it.
    database.prepare(`PRAGMA busy_timeout = ${Math.trunc(busyTimeoutMs)}`).all([]);
    database.prepare('PRAGMA journal_mode = WAL').all([]);
    database.prepare('PRAGMA synchronous = FULL').all([]);
    inTransaction(database, () => database.exec(SCHEMA));
    // The column that the statement names.
    const { id } = database.prepare('SELECT id FROM vramkit_store').get([]) as { id: string };
    return new SqliteStore(database, id);
  });
}

interface Row {
  readonly key: string;
  readonly id: number;
  readonly size: number;
}

class SqliteStore implements BlobStore {
  readonly name = 'sqlite';
  readonly capabilities: StoreCapabilities = {
    createIfAbsent: true,
    compareAndSwap: true,
    maxConditionalBytes: Number.MAX_SAFE_INTEGER,
    maxBlobBytes: Number.MAX_SAFE_INTEGER,
    preferredChunkBytes: PART_BYTES,
    nestedKeys: true,
    durability: 'synced',
    probed: [],
  };
  readonly #database: SqliteDatabase;
  /** The database's own. */
  readonly #id: string;
  readonly #sql: ReturnType<typeof prepare>;

  constructor(database: SqliteDatabase, id: string) {
    this.#database = database;
    this.#id = id;
    this.#sql = prepare(database);
  }

  async put(key: string, body: BlobBody, options: PutOptions = {}): Promise<BlobInfo> {
    const { condition, signal } = options;
    checkKey(key);
    await turn(signal);
    let id: number | undefined;
    // The number of a transaction that was rolled back may be another put's by now.
    let isKept = false;
    let sizeBytes = 0;
    let count = 0;
    let waiting: Uint8Array[] = [];
    const flush = (): void => {
      id ??= Number(this.#sql.begin.run([]).lastInsertRowid);
      for (const part of waiting) this.#sql.addPart.run([id, count++, part]);
      waiting = [];
    };
    try {
      for await (const part of inParts(chunksOf(body, options), PART_BYTES)) {
        if (sizeBytes > 0) await turn(signal);
        sizeBytes += part.length;
        if (waiting.length === PARTS_PER_TRANSACTION) {
          this.#transaction(`putting '${key}'`, flush);
          isKept = true;
        }
        waiting.push(part);
      }
      const { info, old } = this.#transaction(`putting '${key}'`, () => {
        flush();
        assertInvariant(id !== undefined, 'a put has a number');
        const row = { key, id, size: sizeBytes };
        return { info: this.#describe(row), old: this.#publish(row, condition) };
      });
      await this.#removeLarge(old);
      return info;
    } catch (error) {
      if (isKept && id !== undefined) await this.#removeRows(id, count);
      throw error;
    }
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const { offsetBytes = 0, lengthBytes, version, signal } = options;
    checkKey(key);
    checkRange(offsetBytes, lengthBytes);
    await turn(signal);
    const row = this.#find(key) ?? failNotFound(this.name, key);
    if (version !== undefined && version !== this.#describe(row).version) {
      throw conflictError(this.name, key, lostCondition({ version }));
    }
    const end = rangeEnd(key, row.size, offsetBytes, lengthBytes);
    for (let at = offsetBytes; at < end;) {
      if (at > offsetBytes) await turn(signal);
      const part = Math.floor(at / PART_BYTES);
      const from = at - part * PART_BYTES;
      const length = Math.min(PART_BYTES - from, end - at);
      // substr counts from 1.
      const found = translated(`reading '${key}'`, () =>
        this.#sql.readPart.get([from + 1, length, row.id, part]),
      ) as { bytes: Uint8Array } | undefined; // the column that the statement names
      if (found === undefined || found.bytes.length !== length) {
        throw conflictError(this.name, key, 'was replaced or deleted while it was read');
      }
      at += length;
      yield new Uint8Array(found.bytes.buffer, found.bytes.byteOffset, length);
    }
  }

  async head(key: string, { signal }: CallOptions = {}): Promise<BlobInfo | undefined> {
    checkKey(key);
    await turn(signal);
    const row = this.#find(key);
    return row === undefined ? undefined : this.#describe(row);
  }

  async *list(
    prefix: string,
    options: ListOptions = {},
  ): AsyncGenerator<BlobInfo, void, undefined> {
    const { startAfter, limit = Infinity, signal } = options;
    checkPrefix(prefix);
    let after = startAfter ?? '';
    for (let count = 0; count < limit;) {
      await turn(signal);
      // The columns that the statement names.
      const rows = translated(`listing '${prefix}'`, () =>
        this.#sql.page.all([prefix, after, Math.min(PAGE_ROWS, limit - count)]),
      ) as Row[];
      for (const row of rows) {
        if (!row.key.startsWith(prefix)) return;
        count += 1;
        after = row.key;
        yield this.#describe(row);
      }
      if (rows.length === 0) return;
    }
  }

  async delete(key: string, { signal }: CallOptions = {}): Promise<void> {
    checkKey(key);
    await turn(signal);
    const old = this.#transaction(`deleting '${key}'`, () => {
      const row = this.#find(key);
      if (row !== undefined) this.#sql.removeBlob.run([key]);
      return this.#retire(row);
    });
    await this.#removeLarge(old);
  }

  #describe({ key, id, size }: Row): BlobInfo {
    return { key, sizeBytes: size, version: `${id}-${this.#id}` };
  }

  #find(key: string): Row | undefined {
    // The columns that the statement names.
    return translated(`looking for '${key}'`, () => this.#sql.find.get([key])) as Row | undefined;
  }

  /** Inside a transaction; gives the blob whose rows are yet to go. */
  #publish(row: Row, condition: PutCondition | undefined): Row | undefined {
    const { key, id, size } = row;
    const old = this.#find(key);
    if (condition !== undefined) {
      const version = old === undefined ? undefined : this.#describe(old).version;
      const holds = condition === 'absent' ? old === undefined : version === condition.version;
      if (!holds) throw conflictError(this.name, key, lostCondition(condition));
    }
    this.#sql.publish.run([key, id, size]);
    this.#sql.endPut.run([id]);
    return this.#retire(old);
  }

  /** Inside a transaction: rows of a small blob go now; those of a large one are to, by its end. */
  #retire(row: Row | undefined): Row | undefined {
    if (row === undefined) return undefined;
    if (partCount(row) > PARTS_PER_REMOVAL) {
      this.#sql.retire.run([row.id]);
      return row;
    }
    this.#sql.removeParts.run([row.id, PARTS_PER_REMOVAL]);
    return undefined;
  }

  async #removeLarge(row: Row | undefined): Promise<void> {
    if (row !== undefined) await this.#removeRows(row.id, partCount(row));
  }

  /** Best effort: what stays is removed by a later opening. */
  async #removeRows(id: number, count: number): Promise<void> {
    try {
      for (let removed = 0; removed < count; await turn()) {
        removed += PARTS_PER_REMOVAL;
        this.#transaction('cleaning up', () => {
          this.#sql.removeParts.run([id, removed]);
          if (removed >= count) this.#sql.endPut.run([id]);
        });
      }
    } catch {
      // The put's own end is the one to report.
    }
  }

  #transaction<Result>(doing: string, body: () => Result): Result {
    return translated(doing, () => inTransaction(this.#database, body));
  }
}

/** Another turn of the event loop, so that no loop over calls starves it; then the signal. */
async function turn(signal?: AbortSignal): Promise<void> {
  await setImmediate();
  throwIfAborted(signal);
}

function partCount({ size }: Row): number {
  return Math.ceil(size / PART_BYTES);
}

function inTransaction<Result>(database: SqliteDatabase, body: () => Result): Result {
  database.exec('BEGIN IMMEDIATE');
  try {
    const result = body();
    database.exec('COMMIT');
    return result;
  } catch (error) {
    rollback(database);
    throw error;
  }
}

/** A full disk makes SQLite roll back by itself, and a second rollback an error of its own. */
function rollback(database: SqliteDatabase): void {
  try {
    database.exec('ROLLBACK');
  } catch {
    // Rolled back already.
  }
}

function prepare(database: SqliteDatabase) {
  const sql = (text: string): SqliteStatement => database.prepare(text);
  return {
    begin: sql('INSERT INTO vramkit_put DEFAULT VALUES'),
    endPut: sql('DELETE FROM vramkit_put WHERE id = ?'),
    addPart: sql('INSERT INTO vramkit_chunk (id, part, bytes) VALUES (?, ?, ?)'),
    readPart: sql(
      'SELECT substr(bytes, ?, ?) AS bytes FROM vramkit_chunk WHERE id = ? AND part = ?',
    ),
    removeParts: sql('DELETE FROM vramkit_chunk WHERE id = ? AND part < ?'),
    retire: sql('INSERT INTO vramkit_put (id) VALUES (?)'),
    find: sql('SELECT key, id, size FROM vramkit_blob WHERE key = ?'),
    publish: sql('INSERT OR REPLACE INTO vramkit_blob (key, id, size) VALUES (?, ?, ?)'),
    removeBlob: sql('DELETE FROM vramkit_blob WHERE key = ?'),
    page: sql(
      'SELECT key, id, size FROM vramkit_blob WHERE key >= ? AND key > ? ORDER BY key LIMIT ?',
    ),
  };
}

/** Runs a call of the driver, whose errors become typed ones. */
function translated<Result>(doing: string, call: () => Result): Result {
  try {
    return call();
  } catch (error) {
    if (isVramError(error)) throw error;
    const sqliteCode = codeOf(error);
    const isBusy = /^SQLITE_(BUSY|LOCKED)/.test(sqliteCode);
    const code = /^SQLITE_FULL/.test(sqliteCode)
      ? 'storage-full'
      : /^SQLITE_(CORRUPT|NOTADB)/.test(sqliteCode)
        ? 'corrupt-data'
        : /^SQLITE_(READONLY|PERM|AUTH|CANTOPEN)/.test(sqliteCode)
          ? 'access-denied'
          : 'unavailable';
    throw new VramError(code, `sqlite, ${doing}: ${sqliteCode || 'failed'}`, {
      context: { store: 'sqlite', systemCode: sqliteCode },
      retryable: isBusy,
      cause: error,
    });
  }
}
