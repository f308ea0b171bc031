/** Shapes and strides, pure: dimensions outermost first, strides in elements. */
import { assertArgument } from './assert.js';

/** Extents, outermost dimension first. */
export type Shape = readonly number[];

/**
 * Elements of a shape; 1 for a scalar.
 * @throws VramError `invalid-argument` for what is no list, a negative or fractional extent, or a
 * product that overflows.
 */
export function elementCount(shape: Shape): number {
  const isList: boolean = Array.isArray(shape);
  assertArgument(isList, `a shape is a list of extents, such as [4], got ${String(shape)}`);
  let count = 1;
  for (const extent of shape) {
    assertArgument(Number.isSafeInteger(extent) && extent >= 0, `bad shape [${shape.join(', ')}]`);
    count *= extent;
  }
  assertArgument(Number.isSafeInteger(count), `shape [${shape.join(', ')}] overflows`);
  return count;
}

/** Strides of a contiguous tensor, in elements. */
export function contiguousStrides(shape: Shape): number[] {
  const strides = new Array<number>(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--) {
    strides[axis] = (strides[axis + 1] ?? 1) * (shape[axis + 1] ?? 1);
  }
  return strides;
}

/** Whether two shapes are equal. */
export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((extent, axis) => extent === b[axis]);
}
