/** The definition of the matrix product, against products done by hand. */
import { describe, expect, it } from 'vitest';
import { matmulCpu } from './matmul.cpu.js';

describe('matmulCpu', () => {
  it('multiplies rows of the first by columns of the second', () => {
    const a = new Float32Array([1, 2, 3, 4]);
    const b = new Float32Array([5, 6, 7, 8]);
    expect([...matmulCpu(a, b, 2)]).toEqual([19, 22, 43, 50]);
  });

  it('sums in f64', () => {
    const a = new Float32Array([1e8, 1, 0, 0]);
    const b = new Float32Array([1, 0, 1, 0]);
    expect(matmulCpu(a, b, 2)[0]).toBe(100_000_001);
  });
});
