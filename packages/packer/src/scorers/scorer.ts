/**
 * What a scorer is: a unit's weights in, one number out, and a higher number means more bits.
 *
 * A unit is what gets one width: a tensor, or an expert with its gate, up and down. Scorers see one
 * unit at a time, so no more than one is in memory; any function of that shape is a scorer.
 */

/** A matrix of a unit, with its weights. */
export interface UnitTensor {
  /** Name in the file. */
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
  /** [rows, columns]. */
  readonly values: Float32Array;
  /** Importance of each column. Default: all alike. */
  readonly importance?: Float32Array | undefined;
  /** Second moments of its activations, [columns, columns]. */
  readonly moments?: Float64Array | undefined;
}

/** A unit with its weights in memory. */
export interface LoadedUnit {
  /** Unique name. */
  readonly id: string;
  /** Layer, for scopes; units outside of layers have -1. */
  readonly layer: number;
  readonly tensors: readonly UnitTensor[];
}

/** Gives each unit a number; a higher one means that its bits matter more. */
export interface Scorer {
  /** Name in reports. */
  readonly name: string;
  /** The score, finite. */
  score(unit: LoadedUnit): number | Promise<number>;
}
