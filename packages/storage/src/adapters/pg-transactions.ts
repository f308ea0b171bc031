/**
 * Transactions over a pool of npm `pg` that run until they serialise, and end in typed errors.
 *
 * A closure may run several times, so it does nothing outside the database. Errors carry the
 * SQLSTATE and the driver's class of message, never a parameter, an address or a password.
 */
import { isVramError, VramError, type VramErrorCode } from '@vramkit/core';
import { sleep } from '../layers/wrap.js';
import { codeOf } from '../store-error.js';

/** What a query gives; a subset of pg's `QueryResult`. */
export interface PgResult {
  readonly rows: readonly unknown[];
  readonly rowCount: number | null;
}

/** One connection of a pool; a subset of pg's `PoolClient`. */
export interface PgClient {
  query(text: string, values: unknown[]): Promise<PgResult>;
  /** Gives the connection back, or destroys it. */
  release(destroy?: boolean): void;
  /** A connection that breaks while nobody waits for it says so here, and must be heard. */
  on(event: 'error', listener: () => void): unknown;
  removeListener(event: 'error', listener: () => void): unknown;
}

/** The part of pg's `Pool` that the store uses. */
export interface PgPool {
  connect(): Promise<PgClient>;
}

/** Runs one statement of a transaction. */
export type PgRun = (text: string, values: unknown[]) => Promise<PgResult>;

const SERIALISATION = ['40001', '40P01'];
const UNDEFINED_OBJECT = '42704'; // what PostgreSQL says of a setting that it does not know
const ALREADY_THERE = ['23505', '42P07', '42710']; // CREATE ... IF NOT EXISTS, twice at once
const MAX_WAIT_MS = 1000;

/** Transactions of one pool. */
export class PgTransactions {
  readonly #pool: PgPool;
  readonly #random: () => number;
  readonly #tries: number;

  constructor(pool: PgPool, random: () => number, tries: number) {
    this.#pool = pool;
    this.#random = random;
    this.#tries = tries;
  }

  /** Which database answers. */
  async detect(): Promise<'cockroachdb' | 'postgresql'> {
    try {
      await this.#attempt('SHOW crdb_version', []);
      return 'cockroachdb';
    } catch (error) {
      if (codeOf(error) === UNDEFINED_OBJECT) return 'postgresql';
      throw sqlError('opening it', error);
    }
  }

  /** Runs a definition; one that another client made at the same time is no error. */
  async define(text: string): Promise<void> {
    try {
      await this.#attempt(text, []);
    } catch (error) {
      if (!ALREADY_THERE.includes(codeOf(error))) throw sqlError('making tables', error);
    }
  }

  /** Runs one statement as a transaction of its own. */
  query(doing: string, text: string, values: unknown[]): Promise<PgResult> {
    return this.#again(doing, () => this.#attempt(text, values));
  }

  /**
   * Runs `body` in a transaction until it commits.
   * @param wasApplied Asked when the answer to COMMIT was lost. Default: nobody knows.
   */
  run<Result>(
    doing: string,
    body: (run: PgRun) => Promise<Result>,
    wasApplied: () => Promise<boolean> = () => Promise.resolve(false),
  ): Promise<Result> {
    return this.#again(doing, async () => {
      const client = await this.#connect();
      let isCommitting = false;
      let isBroken = true;
      let result: { readonly value: Result } | undefined;
      try {
        // Said aloud, because PostgreSQL's own default is weaker.
        await client.query('BEGIN ISOLATION LEVEL SERIALIZABLE', []);
        result = { value: await body((text, values) => client.query(text, values)) };
        isCommitting = true;
        await client.query('COMMIT', []);
        isBroken = false;
        return result.value;
      } catch (error) {
        const isRolledBack = await client.query('ROLLBACK', []).then(
          () => true,
          () => false,
        );
        isBroken = !isRolledBack;
        const isAmbiguous = isCommitting && (isBroken || codeOf(error) === '40003');
        if (isAmbiguous && result !== undefined && (await wasApplied())) return result.value;
        throw error;
      } finally {
        giveBack(client, isBroken);
      }
    });
  }

  async #attempt(text: string, values: unknown[]): Promise<PgResult> {
    const client = await this.#connect();
    let isBroken = false;
    try {
      return await client.query(text, values);
    } catch (error) {
      // An error without a SQLSTATE is one of the connection.
      isBroken = !/^[0-9A-Z]{5}$/.test(codeOf(error));
      throw error;
    } finally {
      giveBack(client, isBroken);
    }
  }

  async #connect(): Promise<PgClient> {
    const client = await this.#pool.connect();
    client.on('error', ignore);
    return client;
  }

  async #again<Result>(doing: string, attempt: () => Promise<Result>): Promise<Result> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await attempt();
      } catch (error) {
        if (isVramError(error)) throw error;
        if (!SERIALISATION.includes(codeOf(error)) || tries >= this.#tries) {
          throw sqlError(doing, error);
        }
        await sleep(this.#random() * Math.min(MAX_WAIT_MS, 2 ** tries));
      }
    }
  }
}

/** The query that waits rejects too; what comes without one is found by the next query. */
function ignore(): void {}

/** Gives a connection back to its pool; a broken one may still say so, and goes unheard. */
function giveBack(client: PgClient, isBroken: boolean): void {
  if (!isBroken) client.removeListener('error', ignore);
  client.release(isBroken);
}

// By class of SQLSTATE: what a caller can do about it.
const BY_CLASS: readonly (readonly [RegExp, VramErrorCode])[] = [
  [/^(53100|53200)$/, 'storage-full'],
  [/^(28|42501)/, 'access-denied'],
  [/^57014$/, 'timeout'],
  [/^(XX001|XX002)$/, 'corrupt-data'],
];

/** The error of a database or of its connection as a typed one. */
export function sqlError(doing: string, error: unknown): VramError {
  const sqlState = codeOf(error);
  const code = BY_CLASS.find(([states]) => states.test(sqlState))?.[1] ?? 'unavailable';
  // Connections, restarts, resources and serialisation pass; a defect of the statement does not.
  const retryable = code === 'timeout' || (code === 'unavailable' && !/^42/.test(sqlState));
  // The driver's error may quote parameters, so only its code goes on.
  return new VramError(code, `sql, ${doing}: ${sqlState || 'the connection failed'}`, {
    context: { sqlState },
    retryable,
  });
}
