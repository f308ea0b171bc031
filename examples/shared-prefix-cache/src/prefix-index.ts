/**
 * The index of a shared prefix cache: which block is where, who may write it, until when it stays.
 *
 * Mental model: a row per block, in one of three states. Every change is one statement whose WHERE
 * says what must still hold, so races are decided by the database and by nothing else:
 *
 * ```
 *             claim                 publish                 reap
 *   (no row) ───────▶ storing ───────────────▶ stored ───────────────▶ removing ──▶ (no row)
 *                        │                                                ▲
 *                        └──────────────── lease over: the writer died ───┘
 * ```
 *
 * A lease is a time of the database, in each state with its own meaning: until then the writer may
 * write, readers may read, the remover may remove. Whoever finds it over may take the next step in
 * the place of the one who died. A claim names its blob by an id of its own; so a writer that
 * wakes up after its lease finds no row of its id, and removes its own blob.
 *
 * The SQL is what CockroachDB and PostgreSQL both have, parameters only. Statements that fail to
 * serialise (40001, 40P01) run again after a random wait.
 */
import { setTimeout as sleep } from 'node:timers/promises';

/** The part of pg's `Pool` that the index uses. */
export interface SqlPool {
  query(text: string, values: unknown[]): Promise<{ rows: unknown[]; rowCount: number | null }>;
}

/** A block, and the id under which its bytes are. */
export interface StoredBlock {
  readonly name: string;
  readonly blob: string;
}

/** What the index holds. */
export interface IndexUsage {
  readonly storedBlocks: number;
  readonly storedBytes: number;
  /** Rows in any state. */
  readonly rows: number;
}

const STORING = 0;
const STORED = 1;
const REMOVING = 2;
const MAX_TRIES = 50;

/** Rows in `vramkit_prefix_block`; the pool stays the caller's. */
export class PrefixIndex {
  readonly #pool: SqlPool;
  readonly #random: () => number;

  private constructor(pool: SqlPool, random: () => number) {
    this.#pool = pool;
    this.#random = random;
  }

  /** Opens the index; makes its table where it is missing. */
  static async open(pool: SqlPool, random: () => number): Promise<PrefixIndex> {
    const index = new PrefixIndex(pool, random);
    await index.#run(
      `CREATE TABLE IF NOT EXISTS vramkit_prefix_block (
         name BYTEA PRIMARY KEY, blob UUID NOT NULL, state INT2 NOT NULL, size INT8 NOT NULL,
         lease_until TIMESTAMPTZ NOT NULL)`,
      [],
    );
    return index;
  }

  /** The right to write a block; false where another process has it, or the block. */
  async claim({ name, blob }: StoredBlock, sizeBytes: number, leaseMs: number): Promise<boolean> {
    const { rowCount } = await this.#run(
      `INSERT INTO vramkit_prefix_block (name, blob, state, size, lease_until)
       VALUES ($1, $2, ${STORING}, $3, ${later(4)}) ON CONFLICT DO NOTHING`,
      [bytesOf(name), blob, sizeBytes, leaseMs],
    );
    return rowCount === 1;
  }

  /** Makes a written block visible; false where the claim was over and is gone. */
  async publish({ name, blob }: StoredBlock, leaseMs: number): Promise<boolean> {
    const { rowCount } = await this.#run(
      `UPDATE vramkit_prefix_block
       SET state = ${STORED}, lease_until = ${later(3)}
       WHERE name = $1 AND blob = $2 AND state = ${STORING}`,
      [bytesOf(name), blob, leaseMs],
    );
    return rowCount === 1;
  }

  /**
   * Stored blocks of these names, by name, none of which is removed before `leaseMs` from now; they
   * stay for `keepMs`. A lease that is longer than half of that is left, so that readers do not
   * write each time.
   */
  async hold(
    names: readonly string[],
    leaseMs: number,
    keepMs: number,
  ): Promise<Map<string, string>> {
    const list = names.map(bytesOf);
    await this.#run(
      `UPDATE vramkit_prefix_block SET lease_until = ${later(2)}
       WHERE name = ANY($1) AND state = ${STORED}
         AND lease_until < ${later(3)}`,
      [list, keepMs, Math.floor(keepMs / 2)],
    );
    const { rows } = await this.#run(
      `SELECT name, blob FROM vramkit_prefix_block
       WHERE name = ANY($1) AND state = ${STORED} AND lease_until >= ${later(2)}`,
      [list, leaseMs],
    );
    return new Map(blocksOf(rows).map(({ name, blob }) => [name, blob]));
  }

  /** Ends the lease of a stored block whose bytes are gone or damaged. */
  async condemn({ name, blob }: StoredBlock): Promise<void> {
    await this.#run(
      `UPDATE vramkit_prefix_block SET state = ${REMOVING}, lease_until = now()
       WHERE name = $1 AND blob = $2 AND state = ${STORED}`,
      [bytesOf(name), blob],
    );
  }

  /** Takes blocks whose lease is over; the caller may remove them until `leaseMs` from now. */
  async reap(most: number, leaseMs: number): Promise<StoredBlock[]> {
    const { rows } = await this.#run(
      `UPDATE vramkit_prefix_block
       SET state = ${REMOVING}, lease_until = ${later(2)}
       WHERE lease_until < now() AND name IN
         (SELECT name FROM vramkit_prefix_block WHERE lease_until < now()
          ORDER BY lease_until LIMIT $1)
       RETURNING name, blob`,
      [most, leaseMs],
    );
    return blocksOf(rows);
  }

  /** Forgets a block whose blob is gone: a reaped one, or the caller's own claim. */
  async forget({ name, blob }: StoredBlock): Promise<void> {
    await this.#run(
      `DELETE FROM vramkit_prefix_block WHERE name = $1 AND blob = $2 AND state <> ${STORED}`,
      [bytesOf(name), blob],
    );
  }

  /** Which of these blocks have a row, in any state. */
  async known(blocks: readonly StoredBlock[]): Promise<Set<string>> {
    const { rows } = await this.#run(
      'SELECT name, blob FROM vramkit_prefix_block WHERE name = ANY($1)',
      [blocks.map(({ name }) => bytesOf(name))],
    );
    return new Set(blocksOf(rows).map(({ blob }) => blob));
  }

  /** Counts. */
  async usage(): Promise<IndexUsage> {
    const { rows } = await this.#run(
      `SELECT count(*) AS rows, coalesce(sum(CASE WHEN state = ${STORED} THEN 1 END), 0) AS stored,
              coalesce(sum(CASE WHEN state = ${STORED} THEN size END), 0) AS bytes
       FROM vramkit_prefix_block`,
      [],
    );
    const [row] = rows as { rows: string; stored: string; bytes: string }[]; // as selected
    return {
      rows: Number(row?.rows),
      storedBlocks: Number(row?.stored),
      storedBytes: Number(row?.bytes),
    };
  }

  async #run(text: string, values: unknown[]) {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#pool.query(text, values);
      } catch (error) {
        const code = error instanceof Error && 'code' in error ? error.code : undefined;
        // 23505 and 42P07: two processes made the table at once.
        const passes = ['40001', '40P01', '23505', '42P07'].includes(String(code));
        if (!passes || tries >= MAX_TRIES) throw error;
        await sleep(this.#random() * Math.min(200, 2 ** tries));
      }
    }
  }
}

/** A time of the database, the parameter's milliseconds from now. */
function later(parameter: number): string {
  return `now() + $${parameter}::INT8 * INTERVAL '1 millisecond'`;
}

function bytesOf(name: string): Buffer {
  return Buffer.from(name, 'hex');
}

function blocksOf(rows: readonly unknown[]): StoredBlock[] {
  // The columns that were selected.
  return (rows as readonly { readonly name: Buffer; readonly blob: string }[]).map(
    ({ name, blob }) => ({ name: name.toString('hex'), blob }),
  );
}
