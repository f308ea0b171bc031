/** Binary16, one by one and many at once; names of element types. */
import { expect, it } from 'vitest';
import { dtypeBytes, f16ArrayToF32, f16ToF32, f32ToF16, isDType } from './dtype.js';

it('many f16 bit patterns give what each gives alone, and go back to themselves', () => {
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const all = f16ArrayToF32(bits);
  expect([...all].findIndex((value, i) => !Object.is(value, f16ToF32(i)))).toBe(-1);
  const back = (i: number): boolean => Number.isNaN(all[i]) || f32ToF16(all[i] ?? 0) === i;
  expect([...bits].findIndex((i) => !back(i))).toBe(-1);
});

it.each(['i64', 'toString'])(
  '%s is no element type, and the error lists those there are',
  (name) => {
    expect(isDType(name)).toBe(false);
    const message = new RegExp(
      `invalid-argument: unknown dtype '${name}'; there are f32, f16, bf16`,
    );
    expect(() => dtypeBytes(name as 'f32', 2)).toThrow(message);
  },
);
