/**
 * The gradient of a row's output error, kept up to date while the row's codes and factors move.
 *
 * With d = s q + m - w and H the moments, the gradient H d is for groups g
 *
 *     sum over g of s_g H q_g + m_g H 1_g, less H w
 *
 * where q_g and 1_g are the codes and ones of a group, and 0 elsewhere. H 1_g is the same for all
 * rows, H w for all steps, and H q_g changes by the columns of the codes that changed. A step of
 * training changes few codes, so that it costs columns^2 (2 / groupSize + part of codes changed) in
 * the place of columns^2.
 */
import { assertArgument } from '@vramkit/core';

/** See the head of this file; one row at a time. */
export class RowGradient {
  /** Gradient by each weight's error, [columns]; as of the last {@link update}. */
  readonly values: Float64Array;
  readonly #columns: number;
  readonly #groupSize: number;
  readonly #moments: Float64Array;
  /** H 1_g, [groups, columns]. */
  readonly #ofOnes: Float64Array;
  /** H q_g, [groups, columns]. */
  readonly #ofCodes: Float64Array;
  /** H w, [columns]. */
  readonly #ofWeights: Float64Array;
  readonly #codes: Uint8Array;
  /** Columns of a group whose codes changed, and by how much, [columns]. */
  readonly #changed: Uint32Array;
  readonly #difference: Float64Array;

  /** For moments [columns, columns], symmetric, and groups that divide a row. */
  constructor(moments: Float64Array, columns: number, groupSize: number) {
    assertArgument(moments.length === columns * columns, 'moments are not of these columns');
    assertArgument(columns % groupSize === 0, 'groups do not divide a row');
    const groups = columns / groupSize;
    this.values = new Float64Array(columns);
    this.#columns = columns;
    this.#groupSize = groupSize;
    this.#moments = moments;
    this.#ofOnes = new Float64Array(groups * columns);
    this.#ofCodes = new Float64Array(groups * columns);
    this.#ofWeights = new Float64Array(columns);
    this.#codes = new Uint8Array(columns);
    this.#changed = new Uint32Array(groupSize);
    this.#difference = new Float64Array(columns);
    const ones = new Float64Array(columns).fill(1);
    const all = Uint32Array.from({ length: columns }, (_, column) => column);
    for (let group = 0; group < groups; group++) {
      const own = all.subarray(group * groupSize, (group + 1) * groupSize);
      this.#add(own, ones, this.#ofOnes.subarray(group * columns, (group + 1) * columns));
    }
  }

  /** Starts on a row; all codes count as 0. */
  start(weights: Float32Array): void {
    const all = Uint32Array.from(weights, (_, column) => column);
    this.#ofWeights.fill(0);
    this.#add(all, Float64Array.from(weights), this.#ofWeights);
    this.#ofCodes.fill(0);
    this.#codes.fill(0);
  }

  /** Takes the codes [columns] and the factors of each group. */
  update(codes: Uint8Array, scales: Float64Array, minimums: Float64Array): void {
    const n = this.#columns;
    const { values } = this;
    const ofCodes = this.#ofCodes;
    const ofOnes = this.#ofOnes;
    for (let i = 0; i < n; i++) values[i] = -(this.#ofWeights[i] ?? 0);
    for (let group = 0; group < scales.length; group++) {
      this.#follow(group, codes);
      const scale = scales[group] ?? 0;
      const minimum = minimums[group] ?? 0;
      const at = group * n;
      for (let i = 0; i < n; i++) {
        values[i] =
          (values[i] ?? 0) + scale * (ofCodes[at + i] ?? 0) + minimum * (ofOnes[at + i] ?? 0);
      }
    }
  }

  /** Brings H q of a group up to date. */
  #follow(group: number, codes: Uint8Array): void {
    const first = group * this.#groupSize;
    let count = 0;
    for (let i = first; i < first + this.#groupSize; i++) {
      const by = (codes[i] ?? 0) - (this.#codes[i] ?? 0);
      if (by === 0) continue;
      this.#difference[i] = by;
      this.#changed[count++] = i;
      this.#codes[i] = codes[i] ?? 0;
    }
    const into = this.#ofCodes.subarray(group * this.#columns, (group + 1) * this.#columns);
    this.#add(this.#changed.subarray(0, count), this.#difference, into);
  }

  /** Adds H times `factors` of the listed columns; four at a time, so that sums move less. */
  #add(listed: Uint32Array, factors: Float64Array, into: Float64Array): void {
    const n = this.#columns;
    const moments = this.#moments;
    let at = 0;
    for (; at + 4 <= listed.length; at += 4) {
      const a = listed[at] ?? 0;
      const b = listed[at + 1] ?? 0;
      const c = listed[at + 2] ?? 0;
      const d = listed[at + 3] ?? 0;
      const fa = factors[a] ?? 0;
      const fb = factors[b] ?? 0;
      const fc = factors[c] ?? 0;
      const fd = factors[d] ?? 0;
      for (let i = 0; i < n; i++) {
        into[i] =
          (into[i] ?? 0) +
          fa * (moments[a * n + i] ?? 0) +
          fb * (moments[b * n + i] ?? 0) +
          fc * (moments[c * n + i] ?? 0) +
          fd * (moments[d * n + i] ?? 0);
      }
    }
    for (; at < listed.length; at++) {
      const column = listed[at] ?? 0;
      const factor = factors[column] ?? 0;
      const row = column * n;
      for (let i = 0; i < n; i++) into[i] = (into[i] ?? 0) + factor * (moments[row + i] ?? 0);
    }
  }
}
