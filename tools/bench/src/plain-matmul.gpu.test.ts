/** Every variant of the plain product against sums in f64, at odd sizes. */
import { createGpu } from '@vramkit/adapter';
import { Batch, openDevice } from '@vramkit/core';
import type { VramDevice } from '@vramkit/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createOperands, productVariants, recordProduct, tuneProduct } from './plain-matmul.js';
import type { ProductShape } from './plain-matmul.js';

// Sums of at most 68 products of numbers below 1: f32 rounding stays far below this.
const tolerance = 1e-4;

describe('plain products', () => {
  let device: VramDevice;
  beforeAll(async () => {
    const { gpu } = await createGpu();
    device = await openDevice({ gpu });
  });
  afterAll(() => device.dispose());

  const shapes: ProductShape[] = [
    { rows: 1, depth: 4, outputs: 4 },
    { rows: 1, depth: 68, outputs: 260 },
    { rows: 3, depth: 20, outputs: 12 },
    { rows: 65, depth: 68, outputs: 68 },
    { rows: 128, depth: 64, outputs: 64 },
  ];

  it.each(shapes)('$rows x $depth x $outputs', async (shape) => {
    const { rows, depth, outputs } = shape;
    const operands = createOperands(device, shape);
    try {
      const x = new Float32Array((await device.readback.read(operands.x)).buffer);
      const b = new Float32Array((await device.readback.read(operands.b)).buffer);
      const expected = Float64Array.from({ length: rows * outputs }, (_, index) => {
        const row = Math.floor(index / outputs);
        let sum = 0;
        for (let k = 0; k < depth; k += 1) {
          sum += (x[row * depth + k] ?? NaN) * (b[k * outputs + (index % outputs)] ?? NaN);
        }
        return sum;
      });
      for (const variant of productVariants(rows)) {
        operands.y.write(new Float32Array(rows * outputs).fill(-1));
        const batch = new Batch(device, 'test');
        recordProduct(batch, variant, shape, operands);
        batch.submit();
        const y = new Float32Array((await device.readback.read(operands.y)).buffer);
        const worst = Math.max(...expected.map((value, i) => Math.abs(value - (y[i] ?? NaN))));
        expect(worst, JSON.stringify(variant)).toBeLessThan(tolerance);
      }
      expect(productVariants(rows)).toContainEqual(await tuneProduct(device, shape, operands));
    } finally {
      for (const tensor of Object.values(operands)) tensor.dispose();
    }
  });
});
