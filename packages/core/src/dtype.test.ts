/** Binary16, one by one and many at once. */
import { expect, it } from 'vitest';
import { f16ArrayToF32, f16ToF32, f32ToF16 } from './dtype.js';

it('many f16 bit patterns give what each gives alone, and go back to themselves', () => {
  const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const all = f16ArrayToF32(bits);
  expect([...all].findIndex((value, i) => !Object.is(value, f16ToF32(i)))).toBe(-1);
  const back = (i: number): boolean => Number.isNaN(all[i]) || f32ToF16(all[i] ?? 0) === i;
  expect([...bits].findIndex((i) => !back(i))).toBe(-1);
});
