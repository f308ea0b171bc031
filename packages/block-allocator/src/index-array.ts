/**
 * Arrays of indices: the storage of every structure of this package.
 *
 * Links, reference counts, block ids, slots and positions live in 32-bit typed arrays, so that a
 * million blocks cost a few bytes each and no operation leaves garbage behind. An entry read
 * through {@link at} has been bounds-checked by its caller; a read that has not is compared with
 * `undefined`.
 */

/** 32-bit indices: what callers hand in to be filled, and what kernels bind. */
export type IndexArray = Uint32Array | Int32Array;

/** Anything indexed that holds block ids or token indices; read, never kept. */
export type IndexList = ArrayLike<number>;

/** The largest index that both a `Uint32Array` and an `Int32Array` can hold. */
export const MAX_INDEX = 2 ** 31 - 1;

// One function per type of array: an engine learns a single kind of load for each, where one for
// all would look up the kind at every entry and take several times as long.

/** The entry at a position that the caller knows to be within `[0, list.length)`. */
export function at(list: IndexList, position: number): number {
  // A typed-array boundary: the bounds are the caller's, the type cannot say so.
  return list[position] as number;
}

/** {@link at}, for hot paths over signed arrays. */
export function intAt(list: Int32Array, position: number): number {
  // As in at.
  return list[position] as number;
}

/** {@link at}, for hot paths over unsigned arrays. */
export function uintAt(list: Uint32Array, position: number): number {
  // As in at.
  return list[position] as number;
}

/**
 * An array of at least `capacity` entries that starts with those of `array`; `array` itself where
 * it is large enough. Growth doubles, so that appending one at a time is O(1) amortised.
 */
export function grown(array: Uint32Array<ArrayBuffer>, capacity: number): Uint32Array<ArrayBuffer> {
  if (capacity <= array.length) return array;
  const larger = new Uint32Array(Math.max(capacity, array.length * 2));
  larger.set(array);
  return larger;
}

/** {@link at} for lists of objects. */
export function itemAt<T>(list: readonly T[], position: number): T {
  // The bounds are the caller's, the type cannot say so.
  return list[position] as T;
}
