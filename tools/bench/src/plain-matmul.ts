/**
 * The tuned plain product: every shape of `plain-matmul.wgsl.ts` is tried once on the device at
 * hand, and the fastest is the one that others are compared with.
 */
import { Batch, createTensor } from '@vramkit/core';
import type { Tensor, VramDevice } from '@vramkit/core';
import { registerKernel, sharedKernel, sharedTile } from './plain-matmul.wgsl.js';
import type { RegisterTile } from './plain-matmul.wgsl.js';

/** Sizes of `y[rows, outputs] = x[rows, depth] * b[depth, outputs]`. */
export interface ProductShape {
  /** Rows of x and y. */
  readonly rows: number;
  /** Columns of x, rows of b; a multiple of 4. */
  readonly depth: number;
  /** Columns of b and y; a multiple of 4. */
  readonly outputs: number;
}

/** Operands of a product. */
export interface ProductOperands {
  readonly x: Tensor;
  readonly b: Tensor;
  readonly y: Tensor;
}

/** One way to compute it. */
export type ProductVariant = RegisterTile | 'shared';

/** Every way that is tried, most rows in registers last. */
export function productVariants(rows: number): readonly ProductVariant[] {
  const tile = (tileRows: number, tileVectors: number): RegisterTile => ({
    tileRows,
    tileVectors,
    workgroupSize: 64,
  });
  if (rows === 1) return [tile(1, 1), tile(1, 2), tile(1, 4)];
  return [tile(4, 1), tile(8, 1), tile(4, 2), tile(8, 2), 'shared'];
}

/** Records one product. */
export function recordProduct(
  batch: Batch,
  variant: ProductVariant,
  shape: ProductShape,
  operands: ProductOperands,
): void {
  const bindings = { x: operands.x, b: operands.b, y: operands.y };
  const uniforms = { rows: shape.rows, depth: shape.depth, outputs: shape.outputs };
  if (variant === 'shared') {
    const columns = Math.ceil(shape.outputs / sharedTile);
    const workgroups = [columns, Math.ceil(shape.rows / sharedTile), 1] as const;
    batch.dispatch(sharedKernel, { params: {}, bindings, uniforms, workgroups });
    return;
  }
  const perGroup = 4 * variant.tileVectors * variant.workgroupSize;
  const columns = Math.ceil(shape.outputs / perGroup);
  const workgroups = [columns, Math.ceil(shape.rows / variant.tileRows), 1] as const;
  batch.dispatch(registerKernel, { params: variant, bindings, uniforms, workgroups });
}

/** Operands filled with small numbers; the caller disposes them. */
export function createOperands(device: VramDevice, shape: ProductShape): ProductOperands {
  const { rows, depth, outputs } = shape;
  const tensor = (label: string, dimensions: readonly number[]): Tensor =>
    createTensor(device, { dtype: 'f32', shape: dimensions, kind: 'activations', label });
  const x = tensor('plain x', [rows, depth]);
  const b = tensor('plain b', [depth, outputs]);
  const y = tensor('plain y', [rows, outputs]);
  x.write(Float32Array.from({ length: rows * depth }, (_, index) => (index % 13) / 16));
  b.write(Float32Array.from({ length: depth * outputs }, (_, index) => (index % 7) / 32));
  return { x, b, y };
}

/** Tries every variant twice and gives the one whose second run was the shortest. */
export async function tuneProduct(
  device: VramDevice,
  shape: ProductShape,
  operands: ProductOperands,
): Promise<ProductVariant> {
  let best: { variant: ProductVariant; ms: number } | undefined;
  for (const variant of productVariants(shape.rows)) {
    let ms = Infinity;
    for (let run = 0; run < 2; run += 1) {
      const batch = new Batch(device, 'tune');
      recordProduct(batch, variant, shape, operands);
      const start = performance.now();
      batch.submit();
      await device.settle();
      ms = performance.now() - start;
    }
    if (best === undefined || ms < best.ms) best = { variant, ms };
  }
  if (best === undefined) throw new RangeError('no variant');
  return best.variant;
}
