/**
 * Packs weights that are on the device already, by round to nearest: the same bytes as
 * `quantizeMatrix` with `rtn` gives on the host.
 */
import { Batch, createTensor, fail, type BufferRange } from '@vramkit/core';
import { bindingWindow, rowsPerDispatch } from './binding-window.js';
import {
  PACK_WORKGROUP_SIZE,
  packGroupsKernel,
  packUnitColumns,
} from './kernels/pack-groups.wgsl.js';
import { isAffine, type CodeBits } from './matrix-layout.js';
import type { DeviceMatrix } from './matrix.js';
import type { RtnConvention } from './quantizers/rtn.js';

/** Options of {@link packOnDevice}. */
export interface PackOnDeviceOptions {
  /** How codes map to values. Default: 'asymmetric'. */
  readonly convention?: RtnConvention;
}

/**
 * Writes `matrix` from weights on its device. Resolves when it holds them.
 * @param values Weights, f32 [matrix.rows, matrix.columns], row-major.
 * @throws VramError `unsupported` for a matrix of dense elements, and where a scale or minimum is
 * above the f16 range; `corrupt-data` for weights that are not finite, with their number; then what
 * the matrix holds is undefined. `invalid-argument` where `values` is too small; `out-of-memory`;
 * `device-lost`.
 * @example
 * ```ts
 * import { createTensor, openDevice } from '@vramkit/core';
 * import { createMatrix, packOnDevice } from '@vramkit/packer';
 * using device = await openDevice();
 * const layout = { dtype: 'f32', shape: [2, 32], kind: 'weights', label: 'w' } as const;
 * using values = createTensor(device, layout);
 * values.write(Float32Array.from({ length: 64 }, (_, i) => Math.sin(i)));
 * using packed = createMatrix(device, { rows: 2, columns: 32, format: 'affine3', label: 'w' });
 * await packOnDevice(values, packed);
 * ```
 */
export async function packOnDevice(
  values: BufferRange,
  matrix: DeviceMatrix,
  { convention = 'asymmetric' }: PackOnDeviceOptions = {},
): Promise<void> {
  const { device, label, layout, rows, columns } = matrix;
  const { format, groupSize, factors, codeWordsPerRow, scaleWordsPerRow } = layout;
  if (!isAffine(format)) fail('unsupported', `'${label}' is ${format}, which has no codes`);
  // An affine format has the bits of a code.
  const params = { bits: layout.bits as CodeBits, groupSize, factors, convention };
  const units = Math.ceil(columns / packUnitColumns(params));
  const shape = { dtype: 'u32', shape: [2], kind: 'staging', label: `${label} problems` } as const;
  using problems = createTensor(device, shape);
  problems.write(new Uint32Array(2));
  const batch = new Batch(device, 'packing');
  for (const { firstRow, rowCount, codes, scales } of matrix.segments) {
    const chunk = rowsPerDispatch(device, rowCount, [{ range: values, rowElements: columns }]);
    for (let first = 0; first < rowCount; first += chunk) {
      const count = Math.min(chunk, rowCount - first);
      const at = (firstRow + first) * columns;
      const from = bindingWindow(device, values, at, count * columns);
      batch.dispatch(packGroupsKernel, {
        params,
        bindings: { values: from.range, codes, scales, problems },
        uniforms: {
          rows: count,
          columns,
          valueBase: from.base,
          firstRow: first,
          codeWords: codeWordsPerRow,
          scaleWords: scaleWordsPerRow,
        },
        workgroups: Math.ceil((count * units) / PACK_WORKGROUP_SIZE),
      });
    }
  }
  batch.submit();
  const [notFinite = 0, tooLarge = 0] = await problems.read();
  const context = { tensor: label, rows, columns };
  if (Number(notFinite) > 0) {
    const count = Number(notFinite);
    fail('corrupt-data', `'${label}' has ${count} weights that are not finite`, {
      ...context,
      count,
    });
  }
  if (Number(tooLarge) > 0) {
    fail('unsupported', `${tooLarge} groups of '${label}' are above the f16 range`, context);
  }
}
