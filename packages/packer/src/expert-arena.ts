/**
 * Experts of different widths on the device: one matrix of equal slots for each width, and tables
 * that say which expert is in which slot.
 *
 *     width 2   slots  [ e3 | e7 | -- ]      table  e: slot or NO_SLOT, one u32 for each expert
 *     width 4   slots  [ e0 | e1 | e4 ]      the same, for this width
 *
 * An expert is addressed by its number for ever; where its weights are is one word of a table in
 * device memory. A product reads that word, so a router's choice needs no readback and there is one
 * dispatch for each width. A new copy of an expert, of another width even, becomes visible by
 * writing its word after its bytes: queue order makes that atomic between submits. A slot cannot be
 * read at another width, because the width belongs to the matrix.
 *
 * Slots are runs of whole rows, so none is moved and memory cannot fragment. Invariants
 * ({@link ExpertArena.check}): an expert is in at most one slot; a slot holds at most one expert.
 */
import {
  assertArgument,
  assertInvariant,
  checkInteger,
  createTensor,
  fail,
  writeRange,
  type Batch,
  type Tensor,
  type Uploader,
  type VramDevice,
} from '@vramkit/core';
import { indexedMatmul, type IndexedMatmulArguments } from './indexed-matmul.js';
import type { FactorFormat, GroupSize, MatrixFormat } from './matrix-layout.js';
import { createMatrix, type DeviceMatrix, type MatrixRows } from './matrix.js';

/** Slots of one width. */
export interface ExpertWidth {
  readonly format: MatrixFormat;
  /** Default: 32 for affine formats. */
  readonly groupSize?: GroupSize;
  /** How scales and minimums are stored. Default: 'f16'. */
  readonly factors?: FactorFormat;
  /** Experts that fit. */
  readonly slots: number;
}

/** Options of {@link createExpertArena}. */
export interface ExpertArenaOptions {
  /** Name in errors, traces and memory reports. */
  readonly label: string;
  /** Experts, present or not; ids are 0 to `experts - 1`. */
  readonly experts: number;
  /** Output features of one expert. */
  readonly rowsPerExpert: number;
  /** Input features. */
  readonly columns: number;
  /** At least one; each is a dispatch of a product. */
  readonly widths: readonly ExpertWidth[];
}

/** Where an expert is. */
export interface ExpertSlot {
  /** Index into the arena's widths. */
  readonly width: number;
  readonly slot: number;
}

const NO_SLOT = 0xffffffff;

interface Pool {
  readonly matrix: DeviceMatrix;
  readonly table: Tensor;
  readonly free: number[];
  /** Expert in each slot, or -1. */
  readonly holders: Int32Array;
}

/** Experts on the device; see the head of this file. */
export class ExpertArena {
  readonly experts: number;
  readonly rowsPerExpert: number;
  readonly label: string;
  readonly #device: VramDevice;
  readonly #pools: readonly Pool[];
  readonly #places = new Map<number, ExpertSlot>();

  /** Use {@link createExpertArena}. @internal */
  constructor(device: VramDevice, options: ExpertArenaOptions, pools: readonly Pool[]) {
    this.#device = device;
    this.experts = options.experts;
    this.rowsPerExpert = options.rowsPerExpert;
    this.label = options.label;
    this.#pools = pools;
  }

  /** Bytes of one slot of a width, exactly what an expert of it takes. */
  slotBytes(width: number): number {
    const { matrix, holders } = this.#pool(width);
    return matrix.sizeBytes / holders.length;
  }

  /** Bytes of all slots and tables. */
  get sizeBytes(): number {
    return this.#pools.reduce(
      (sum, { matrix, table }) => sum + matrix.sizeBytes + table.sizeBytes,
      0,
    );
  }

  /** Where an expert is, or `undefined` where it is not on the device. */
  place(expert: number): ExpertSlot | undefined {
    return this.#places.get(expert);
  }

  /** Slots of a width that hold nothing. */
  freeSlots(width: number): number {
    return this.#pool(width).free.length;
  }

  /**
   * Uploads an expert into a free slot and makes it the one that products read; a copy it had in
   * another slot is given up then. Resolves when the data may be reused.
   * @returns false, with nothing changed, where the width has no free slot.
   * @throws VramError `invalid-argument` for rows of another format or number; `aborted`, after
   * which the expert is where it was.
   */
  async tryStore(
    uploader: Uploader,
    expert: number,
    request: {
      readonly width: number;
      readonly rows: MatrixRows;
      readonly signal?: AbortSignal;
    },
  ): Promise<boolean> {
    checkInteger('expert', expert, 0, this.experts - 1);
    const { width, rows, signal } = request;
    const pool = this.#pool(width);
    const slot = pool.free.pop();
    if (slot === undefined) return false;
    try {
      const options = signal === undefined ? {} : { signal };
      const count =
        'codes' in rows
          ? rows.codes.length / pool.matrix.layout.codeWordsPerRow
          : rows.dense.length / pool.matrix.columns;
      assertArgument(
        count === this.rowsPerExpert,
        `${count} rows are no expert of '${this.label}'`,
        {
          label: this.label,
          rows: count,
          rowsPerExpert: this.rowsPerExpert,
        },
      );
      await pool.matrix.upload(uploader, slot * this.rowsPerExpert, rows, options);
    } catch (error) {
      pool.free.push(slot);
      throw error;
    }
    const before = this.#places.get(expert);
    // The new word before the old one goes: in between, both copies are right.
    this.#point(pool, expert, slot);
    if (before !== undefined) this.#vacate(expert, before, before.width !== width);
    pool.holders[slot] = expert;
    this.#places.set(expert, { width, slot });
    return true;
  }

  /**
   * Takes an expert off the device; its rows of products are left alone from then on. Idempotent.
   */
  remove(expert: number): void {
    const place = this.#places.get(expert);
    if (place === undefined) return;
    this.#places.delete(expert);
    this.#vacate(expert, place, true);
  }

  #vacate(expert: number, { width, slot }: ExpertSlot, clearsTable: boolean): void {
    const pool = this.#pool(width);
    if (clearsTable) this.#point(pool, expert, NO_SLOT);
    pool.holders[slot] = -1;
    pool.free.push(slot);
  }

  #point(pool: Pool, expert: number, slot: number): void {
    writeRange(this.#device, pool.table, Uint32Array.of(slot), expert * 4);
  }

  /**
   * Records `y[i] = x[...] * transpose(experts[expertIds[i]])`, one dispatch for each width that
   * has slots. Rows of experts that are not on the device keep what `y` held; ids of no expert give
   * zeros.
   * @throws VramError as `indexedMatmul`.
   */
  multiply(
    batch: Batch,
    args: Omit<
      IndexedMatmulArguments,
      'weights' | 'rowsPerExpert' | 'slots' | 'experts' | 'zeroUnknown'
    >,
  ): void {
    this.#pools.forEach(({ matrix, table }, index) =>
      indexedMatmul(batch, {
        ...args,
        weights: matrix,
        rowsPerExpert: this.rowsPerExpert,
        slots: table,
        experts: this.experts,
        zeroUnknown: index === 0,
      }),
    );
  }

  /** Verifies the invariants. @throws VramError `invariant`. */
  check(): void {
    let held = 0;
    this.#pools.forEach(({ holders, free }, width) => {
      holders.forEach((expert, slot) => {
        if (expert < 0) return;
        held++;
        const place = this.#places.get(expert);
        const agrees = place?.width === width && place.slot === slot;
        assertInvariant(agrees, `slot ${slot} of width ${width} holds ${expert}`);
      });
      const used = holders.filter((expert) => expert >= 0).length;
      assertInvariant(used + free.length === holders.length, `slots of width ${width} are lost`);
    });
    assertInvariant(held === this.#places.size, `${held} slots for ${this.#places.size} experts`);
  }

  /** Gives the memory back; idempotent. */
  dispose(): void {
    for (const { matrix, table } of this.#pools) {
      matrix.dispose();
      table.dispose();
    }
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #pool(width: number): Pool {
    return (
      this.#pools[width] ??
      fail('invalid-argument', `'${this.label}' has no width ${width}`, { width })
    );
  }
}

/**
 * Allocates an arena with all slots empty; the caller disposes it. Memory is taken completely or
 * not at all.
 * @throws VramError `out-of-memory`; `invalid-argument` for sizes that a format does not allow;
 * `unsupported` where one row exceeds the binding limit.
 */
export function createExpertArena(device: VramDevice, options: ExpertArenaOptions): ExpertArena {
  const { label, columns, widths } = options;
  const experts = checkInteger('experts', options.experts, 1, 2 ** 20);
  const rowsPerExpert = checkInteger('rowsPerExpert', options.rowsPerExpert, 1);
  assertArgument(widths.length > 0, `'${label}' has no widths`);
  const pools: Pool[] = [];
  const taken: { dispose(): void }[] = [];
  try {
    for (const { format, groupSize, factors, slots } of widths) {
      checkInteger('slots', slots, 1, experts);
      const rows = slots * rowsPerExpert;
      const name = `${label} ${format}`;
      const stored = { rows, columns, format, groupSize, factors };
      const matrix = createMatrix(device, { ...stored, label: name });
      taken.push(matrix);
      const shape = [experts];
      const table = createTensor(device, {
        dtype: 'u32',
        shape,
        kind: 'weights',
        label: `${name} slots`,
      });
      taken.push(table);
      table.write(new Uint32Array(experts).fill(NO_SLOT));
      const free = Array.from({ length: slots }, (_, i) => slots - 1 - i);
      pools.push({ matrix, table, free, holders: new Int32Array(slots).fill(-1) });
    }
  } catch (error) {
    for (const each of taken) each.dispose();
    throw error;
  }
  return new ExpertArena(device, options, pools);
}
