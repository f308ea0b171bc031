/**
 * WGSL text of a tree reduction over one workgroup, shared by the kernels that reduce a row.
 *
 * Lanes leave their value in `shared_values[lane]`; after `reduce_shared(lane)` the combined value
 * is in `shared_values[0]` for every lane. `combine` is an expression of `a` and `b`.
 */

/** Declarations and the function; call it from uniform control flow. */
export function wgslReduce(type: string, lanes: number, combine: string): string {
  return /* wgsl */ `
var<workgroup> shared_values: array<${type}, ${lanes}>;
fn reduce_shared(lane: u32) {
  workgroupBarrier();
  for (var width = ${lanes / 2}u; width > 0u; width >>= 1u) {
    if (lane < width) {
      let a = shared_values[lane];
      let b = shared_values[lane + width];
      shared_values[lane] = ${combine};
    }
    workgroupBarrier();
  }
}
`;
}
