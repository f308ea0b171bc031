/** Rows within ranges: what is checked, and how rows beyond one binding are cut. */
import type { BufferRange } from '@vramkit/core';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { bindableRows, checkWords, checkRows, rowsPerBinding } from './strided-rows.js';

// A range is described by its numbers; its buffer is never touched here.
const rangeOf = (sizeBytes: number): BufferRange => ({
  buffer: {} as GPUBuffer,
  offsetBytes: 0,
  sizeBytes,
});
const invalid = expect.objectContaining({ code: 'invalid-argument' });

it('rows must lie within their range at multiples of four', () => {
  const range = rangeOf(4 * (8 + 3 * 20 + 16));
  expect(() => checkRows('queries', { range, rowStride: 20, offset: 8 }, 4, 16)).not.toThrow();
  expect(() => checkRows('queries', { range, rowStride: 20, offset: 8 }, 5, 16)).toThrow(invalid);
  expect(() => checkRows('queries', { range, rowStride: 20, offset: 12 }, 4, 16)).toThrow(invalid);
  expect(() => checkRows('queries', { range, rowStride: 12, offset: 8 }, 4, 16)).toThrow(invalid);
  expect(() => checkRows('queries', { range, rowStride: 18, offset: 8 }, 1, 16)).toThrow(invalid);
  expect(() => checkRows('queries', { range, rowStride: 20, offset: 2 }, 1, 16)).toThrow(invalid);
  expect(() => checkRows('queries', { range, rowStride: 20, offset: -4 }, 1, 16)).toThrow(invalid);
  expect(() => checkWords('slots', range, 85)).toThrow(invalid);
});

it('rows cut for a binding are the same bytes, aligned and within the limit', () => {
  const quads = fc.integer({ min: 1, max: 40 }).map((n) => 4 * n);
  const count = fc.integer({ min: 1, max: 60 });
  fc.assert(
    fc.property(quads, fc.nat(9), count, (rowStride, offsetQuads, rows) => {
      const limits = { maxStorageBufferBindingSize: 1024, minStorageBufferOffsetAlignment: 256 };
      const offset = offsetQuads * 4;
      const range = rangeOf((offset + rows * rowStride) * 4);
      const operand = { range, rowStride, offset };
      const step = rowsPerBinding(limits, [operand], rows);
      for (let first = 0; first < rows; first += step) {
        const part = bindableRows(limits, operand, first, Math.min(step, rows - first));
        const { offsetBytes, sizeBytes } = part.range;
        expect(offsetBytes + part.offset * 4).toBe((offset + first * rowStride) * 4);
        expect(offsetBytes % 256).toBe(0);
        expect(sizeBytes).toBeLessThanOrEqual(1024);
        const last = Math.min(step, rows - first) - 1;
        expect((part.offset + last * rowStride + rowStride) * 4).toBeLessThanOrEqual(sizeBytes);
      }
    }),
  );
});

it('a row that no binding holds is unsupported', () => {
  const limits = { maxStorageBufferBindingSize: 1024, minStorageBufferOffsetAlignment: 256 };
  const operand = { range: rangeOf(4096), rowStride: 256, offset: 0 };
  expect(() => rowsPerBinding(limits, [operand], 4)).toThrow(
    expect.objectContaining({ code: 'unsupported' }),
  );
});
