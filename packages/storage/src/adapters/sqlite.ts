/**
 * Blobs in one SQLite file: many small blobs in one place, published by transactions.
 *
 * Tables: `vramkit_put` gives each put a number that is never used again, the blob's version;
 * `vramkit_chunk` holds its bytes in rows of at most 1 MiB; `vramkit_blob` maps a key to the number
 * and size of its latest put. A body up to 4 MiB is one transaction; a larger one fills rows in
 * several and publishes in a last one, which also removes the rows that it replaces. Rows of a put
 * that never ended are removed when a store is opened a day later.
 *
 * The driver is the caller's: anything that speaks better-sqlite3's language, such as npm `libsql`.
 * Its calls block the thread, so a statement moves at most 1 MiB, and no transaction is open across
 * an `await`. Opening sets `journal_mode = WAL`, `synchronous = FULL` and `busy_timeout`: a put
 * that resolved is on the disk.
 *
 * Order: SQLite compares text by its bytes, which are UTF-8, so ORDER BY is the order of keys.
 */
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
const PAGE_ROWS = 256;

const SCHEMA = `
CREATE TABLE IF NOT EXISTS vramkit_put (
  id INTEGER PRIMARY KEY AUTOINCREMENT, begun INTEGER NOT NULL DEFAULT (unixepoch()));
CREATE TABLE IF NOT EXISTS vramkit_chunk (
  id INTEGER NOT NULL, part INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (id, part));
CREATE TABLE IF NOT EXISTS vramkit_blob (
  key TEXT PRIMARY KEY, id INTEGER NOT NULL, size INTEGER NOT NULL) WITHOUT ROWID;
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
    database.prepare('PRAGMA journal_mode = WAL').all([]);
    database.prepare('PRAGMA synchronous = FULL').all([]);
    database.prepare(`PRAGMA busy_timeout = ${Math.trunc(busyTimeoutMs)}`).all([]);
    database.exec(SCHEMA);
    return new SqliteStore(database);
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
  readonly #sql: ReturnType<typeof prepare>;

  constructor(database: SqliteDatabase) {
    this.#database = database;
    this.#sql = prepare(database);
  }

  async put(key: string, body: BlobBody, options: PutOptions = {}): Promise<BlobInfo> {
    checkKey(key);
    throwIfAborted(options.signal);
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
        sizeBytes += part.length;
        if (waiting.length === PARTS_PER_TRANSACTION) {
          this.#transaction(`putting '${key}'`, flush);
          isKept = true;
        }
        waiting.push(part);
      }
      return this.#transaction(`putting '${key}'`, () => {
        flush();
        assertInvariant(id !== undefined, 'a put has a number');
        this.#publish({ key, id, size: sizeBytes }, options.condition);
        return describe({ key, id, size: sizeBytes });
      });
    } catch (error) {
      if (isKept && id !== undefined) this.#forget(id);
      throw error;
    }
  }

  async *get(key: string, options: GetOptions = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const { offsetBytes = 0, lengthBytes, version, signal } = options;
    checkRange(offsetBytes, lengthBytes);
    throwIfAborted(signal);
    const row = this.#find(checkKey(key)) ?? failNotFound(this.name, key);
    if (version !== undefined && version !== String(row.id)) {
      throw conflictError(this.name, key, lostCondition({ version }));
    }
    const end = rangeEnd(key, row.size, offsetBytes, lengthBytes);
    for (let at = offsetBytes; at < end;) {
      throwIfAborted(signal);
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
    throwIfAborted(signal);
    const row = this.#find(key);
    return row === undefined ? undefined : describe(row);
  }

  async *list(
    prefix: string,
    options: ListOptions = {},
  ): AsyncGenerator<BlobInfo, void, undefined> {
    const { startAfter, limit = Infinity, signal } = options;
    checkPrefix(prefix);
    let after = startAfter ?? '';
    for (let count = 0; count < limit;) {
      throwIfAborted(signal);
      // The columns that the statement names.
      const rows = translated(`listing '${prefix}'`, () =>
        this.#sql.page.all([prefix, after, Math.min(PAGE_ROWS, limit - count)]),
      ) as Row[];
      for (const row of rows) {
        if (!row.key.startsWith(prefix)) return;
        count += 1;
        after = row.key;
        yield describe(row);
      }
      if (rows.length === 0) return;
    }
  }

  async delete(key: string, { signal }: CallOptions = {}): Promise<void> {
    checkKey(key);
    throwIfAborted(signal);
    this.#transaction(`deleting '${key}'`, () => {
      const row = this.#find(key);
      if (row === undefined) return;
      this.#sql.removeBlob.run([key]);
      this.#sql.removeParts.run([row.id]);
    });
  }

  #find(key: string): Row | undefined {
    // The columns that the statement names.
    return translated(`looking for '${key}'`, () => this.#sql.find.get([key])) as Row | undefined;
  }

  #publish({ key, id, size }: Row, condition: PutCondition | undefined): void {
    const old = this.#find(key);
    if (condition !== undefined) {
      const holds =
        condition === 'absent' ? old === undefined : String(old?.id) === condition.version;
      if (!holds) throw conflictError(this.name, key, lostCondition(condition));
    }
    if (old !== undefined) this.#sql.removeParts.run([old.id]);
    this.#sql.publish.run([key, id, size]);
    this.#sql.endPut.run([id]);
  }

  /** Best effort: what stays is removed by a later opening. */
  #forget(id: number): void {
    try {
      this.#transaction('cleaning up', () => {
        this.#sql.removeParts.run([id]);
        this.#sql.endPut.run([id]);
      });
    } catch {
      // The error of the put itself is the one to report.
    }
  }

  #transaction<Result>(doing: string, body: () => Result): Result {
    return translated(doing, () => {
      this.#database.exec('BEGIN IMMEDIATE');
      try {
        const result = body();
        this.#database.exec('COMMIT');
        return result;
      } catch (error) {
        rollback(this.#database);
        throw error;
      }
    });
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
    removeParts: sql('DELETE FROM vramkit_chunk WHERE id = ?'),
    find: sql('SELECT key, id, size FROM vramkit_blob WHERE key = ?'),
    publish: sql('INSERT OR REPLACE INTO vramkit_blob (key, id, size) VALUES (?, ?, ?)'),
    removeBlob: sql('DELETE FROM vramkit_blob WHERE key = ?'),
    page: sql(
      'SELECT key, id, size FROM vramkit_blob WHERE key >= ? AND key > ? ORDER BY key LIMIT ?',
    ),
  };
}

function describe({ key, id, size }: Row): BlobInfo {
  return { key, sizeBytes: size, version: String(id) };
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
