/**
 * Weights in f32 to a packed matrix: the checks around a quantizer.
 *
 * Nothing is ever skipped in silence: weights that are not finite, importance of another length and
 * groups that do not divide a row are errors, or handled as the caller chose.
 */
import { assertArgument, fail } from '@vramkit/core';
import { packRows } from './code-words.js';
import type { HostMatrix } from './kernels/host-matrix.js';
import {
  affineMatrixFormat,
  matrixLayout,
  type CodeBits,
  type FactorFormat,
  type MatrixLayout,
} from './matrix-layout.js';
import type { QuantizeInput, Quantizer } from './quantizers/quantizer.js';
import { rtn } from './quantizers/rtn.js';

/** Columns that share a scale, or a whole row of them. */
export type GroupChoice = 16 | 32 | 64 | 128 | 'row';

/** Options of {@link quantizeMatrix}. */
export interface QuantizeOptions {
  /** Name in errors. */
  readonly name: string;
  /** Output features. */
  readonly rows: number;
  /** Input features; a multiple of 32 for 2 and 3 bits. */
  readonly columns: number;
  /** Width of a code. */
  readonly bits: CodeBits;
  /** Default: 32. */
  readonly groupSize?: GroupChoice;
  /** How scales and minimums are stored: 32 bits a group, or compact in 16. Default: 'f16'. */
  readonly factors?: FactorFormat | undefined;
  /** Default: `rtn()`. */
  readonly quantizer?: Quantizer;
  /** How much an error of each column counts, [columns]. Default: all alike. */
  readonly importance?: Float32Array | undefined;
  /** Second moments of the activations, [columns, columns]; for quantizers that need them. */
  readonly moments?: Float64Array | undefined;
  /** NaN and infinities: an error, or 0. Default: 'reject'. */
  readonly nonFinite?: 'reject' | 'zero';
  /**
   * A group size that does not divide the columns: an error, or the next smaller one that does.
   * Default: 'reject'.
   */
  readonly unevenGroups?: 'reject' | 'smaller';
}

/** Where weights are not finite: how many, and the first. */
export function findNonFinite(
  values: Float32Array,
): { readonly count: number; readonly first: number } | undefined {
  let count = 0;
  let first = -1;
  for (let i = 0; i < values.length; i++) {
    // A difference with itself is 0 for finite numbers only.
    const value = values[i] ?? 0;
    if (value - value === 0) continue;
    if (count++ === 0) first = i;
  }
  return count === 0 ? undefined : { count, first };
}

/**
 * The group size of a row of `columns`.
 * @throws VramError `invalid-argument` where it does not divide the row and may not shrink, or
 * where nothing smaller divides it either.
 */
export function groupSizeFor(
  columns: number,
  choice: GroupChoice,
  uneven: 'reject' | 'smaller',
): number {
  if (choice === 'row' || columns % choice === 0) return choice === 'row' ? columns : choice;
  const smaller = [64, 32, 16].find((size) => size < choice && columns % size === 0);
  if (uneven === 'smaller' && smaller !== undefined) return smaller;
  return fail('invalid-argument', `groups of ${choice} do not divide ${columns} columns`, {
    columns,
    groupSize: choice,
    largestThatDoes: smaller,
  });
}

/** A matrix that has passed all checks. */
export interface CheckedMatrix {
  readonly layout: MatrixLayout;
  /** What the quantizer is given. */
  readonly input: QuantizeInput;
}

/** The checks of {@link quantizeMatrix}. @throws VramError as that does, but for the quantizer. */
export function checkMatrix(values: Float32Array, options: QuantizeOptions): CheckedMatrix {
  const { name, rows, columns, bits, factors, importance, moments } = options;
  assertArgument(values.length === rows * columns, `'${name}' is not ${rows} x ${columns}`, {
    tensor: name,
    rows,
    columns,
    elements: values.length,
  });
  const { groupSize: choice = 32, unevenGroups = 'reject' } = options;
  const groupSize = groupSizeFor(columns, choice, unevenGroups);
  const format = affineMatrixFormat(bits);
  const layout = matrixLayout({ rows, columns, format, groupSize, factors });
  checkImportance(name, importance, columns);
  const finite = finiteValues(values, options);
  const input = { values: finite, rows, columns, bits, groupSize, factors, importance, moments };
  return { layout, input };
}

/**
 * Quantizes a matrix.
 * @param values [rows, columns], row-major; left as they are.
 * @throws VramError `invalid-argument` for sizes, importance or groups that do not fit, naming the
 * tensor; `corrupt-data` for weights that are not finite, with the first index and the count;
 * `unsupported` where a scale is above the f16 range; what the quantizer throws.
 * @example
 * ```ts
 * import { hqq, quantizeMatrix } from '@vramkit/packer';
 * const values = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i));
 * const options = { name: 'w', rows: 2, columns: 32, bits: 3, quantizer: hqq() } as const;
 * const packed = quantizeMatrix(values, options);
 * console.log(packed.layout.format, packed.codes.length); // affine3 6
 * ```
 */
export function quantizeMatrix(values: Float32Array, options: QuantizeOptions): HostMatrix {
  const { layout, input } = checkMatrix(values, options);
  const { quantizer = rtn() } = options;
  return { layout, ...packRows(layout, quantizer.quantize(input)) };
}

function checkImportance(
  name: string,
  importance: Float32Array | undefined,
  columns: number,
): void {
  if (importance === undefined) return;
  assertArgument(
    importance.length === columns,
    `importance of '${name}' has ${importance.length} columns, the matrix ${columns}`,
    { tensor: name, columns, importanceColumns: importance.length },
  );
  const bad = importance.findIndex((value) => !(value >= 0 && value < Infinity));
  assertArgument(bad < 0, `importance of '${name}' is ${importance[bad]} at column ${bad}`, {
    tensor: name,
    column: bad,
  });
}

function finiteValues(values: Float32Array, options: QuantizeOptions): Float32Array {
  const bad = findNonFinite(values);
  if (bad === undefined) return values;
  if (options.nonFinite === 'zero') {
    return values.map((value) => (Number.isFinite(value) ? value : 0));
  }
  return fail(
    'corrupt-data',
    `'${options.name}' has ${bad.count} weights that are not finite, the first at ${bad.first}`,
    { tensor: options.name, count: bad.count, index: bad.first },
  );
}
