/** Numbers that are the same in each run. */

/** Uniform numbers in [0, 1) from a seed; xorshift over 32 bits. */
export function uniformFrom(seed: number): () => number {
  let state = (seed * 0x9e37_79b9 + 0x7f4a_7c15) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/** `count` numbers of a normal distribution with deviation `deviation`, by Box and Muller. */
export function normals(count: number, deviation: number, uniform: () => number): Float32Array {
  return Float32Array.from({ length: count }, () => {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    return deviation * radius * Math.cos(2 * Math.PI * uniform());
  });
}
