/**
 * What a quantizer is: weights of whole rows in, codes and stored scales out.
 *
 * Most quantizers decide each group alone ({@link GroupFit}); gptq and signRound look at whole rows
 * and at activations. Rows never depend on each other, so any split of a matrix into rows gives the
 * same bytes, whatever the number of workers.
 */
import { fail } from '@vramkit/core';
import type { AffineCodes } from '../code-words.js';
import { factorCodec, type FactorCodec } from '../factor-codec.js';
import type { CodeBits, FactorFormat } from '../matrix-layout.js';
import { assignCodes } from './group-codes.js';

/** Whole rows to quantize. */
export interface QuantizeInput {
  /** Finite weights [rows, columns], row-major. */
  readonly values: Float32Array;
  readonly rows: number;
  readonly columns: number;
  readonly bits: CodeBits;
  /** Columns that share a scale; divides `columns`. */
  readonly groupSize: number;
  /** How scales and minimums are stored. Default: 'f16'. */
  readonly factors?: FactorFormat | undefined;
  /** How much an error of each column counts, [columns], none negative. Default: all alike. */
  readonly importance?: Float32Array | undefined;
  /**
   * Second moments of the activations that the matrix multiplies, [columns, columns]; see
   * `activationMoments`.
   */
  readonly moments?: Float64Array | undefined;
}

/** Turns weights into codes; pure and deterministic. */
export interface Quantizer {
  /** Name in reports and manifests. */
  readonly name: string;
  /** What it cannot work without. */
  readonly needs: 'nothing' | 'moments';
  /**
   * Quantizes whole rows.
   * @throws VramError `invalid-argument` where what it needs is missing; `unsupported` where a
   * scale is above the f16 range.
   */
  quantize(input: QuantizeInput): AffineCodes;
}

/** A group of one row, as a {@link GroupFit} sees it. */
export interface GroupOfWeights {
  readonly values: Float32Array;
  /** First element of the group in `values`. */
  readonly start: number;
  readonly count: number;
  /** First column of the group in `importance`. */
  readonly column: number;
  readonly bits: CodeBits;
  readonly importance: Float32Array | undefined;
  /** How the pair is stored. */
  readonly codec: FactorCodec;
}

/** Decides scale and minimum of one group. */
export interface GroupFit {
  readonly name: string;
  /** The largest code in use. */
  readonly maxCode: (bits: CodeBits) => number;
  /** The pair to store, as the group's codec gives it. */
  readonly fit: (group: GroupOfWeights) => number;
}

/** The quantizer that decides each group alone and gives every weight its nearest code. */
export function groupQuantizer(fit: GroupFit): Quantizer {
  return {
    name: fit.name,
    needs: 'nothing',
    quantize: (input) => {
      const { values, rows, columns, bits, groupSize, importance, factors: format } = input;
      const codes = new Uint8Array(values.length);
      const factors = new Uint32Array(values.length / groupSize);
      const maxCode = fit.maxCode(bits);
      // One object for all groups: this is the inner loop of packing.
      const codec = factorCodec(format ?? 'f16', bits);
      const group = { values, start: 0, count: groupSize, column: 0, bits, importance, codec };
      for (let row = 0, at = 0; row < rows; row++) {
        for (let column = 0; column < columns; column += groupSize, at++) {
          group.start = row * columns + column;
          group.column = column;
          const word = fit.fit(group);
          factors[at] = word;
          assignCodes(group, word, maxCode, codes);
        }
      }
      return { codes, factors };
    },
  };
}

/**
 * The moments of an input. @throws VramError `invalid-argument` where they are missing or of
 * another size.
 */
export function requireMoments(name: string, input: QuantizeInput): Float64Array {
  const { moments, columns } = input;
  if (moments?.length === columns * columns) return moments;
  return fail('invalid-argument', `${name} needs the moments of ${columns} activations`, {
    columns,
    elements: moments?.length,
  });
}
