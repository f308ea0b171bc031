// Numbers, names and sizes of block types are those of the format.
import { describe, expect, it } from 'vitest';
import {
  GGML_TYPES,
  ggmlBlock,
  ggmlTypeId,
  ggmlTypeName,
  isGgmlType,
  type GgmlType,
} from './ggml-types.js';

describe('block types', () => {
  it('have distinct numbers that name them', () => {
    const ids = GGML_TYPES.map(ggmlTypeId);
    expect(new Set(ids).size).toBe(GGML_TYPES.length);
    expect(ids.map(ggmlTypeName)).toEqual(GGML_TYPES);
    expect(ggmlTypeName(5)).toBe('type 5');
    expect(isGgmlType('IQ4_NL')).toBe(false);
    expect(isGgmlType('toString')).toBe(false);
  });

  it('take the bits per weight of the format', () => {
    const bits = (type: GgmlType) => (ggmlBlock(type).bytes * 8) / ggmlBlock(type).weights;
    const expected = { Q4_0: 4.5, Q4_1: 5, Q5_0: 5.5, Q5_1: 6, Q8_0: 8.5, Q2_K: 2.625 };
    expect(expected).toEqual(
      Object.fromEntries(Object.keys(expected).map((type) => [type, bits(type as GgmlType)])),
    );
    expect([bits('Q3_K'), bits('Q4_K'), bits('Q5_K'), bits('Q6_K')]).toEqual([
      3.4375, 4.5, 5.5, 6.5625,
    ]);
  });
});
