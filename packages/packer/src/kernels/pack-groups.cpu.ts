/** CPU twin of pack-groups.wgsl.ts: the definition of packing by round to nearest. */
import { packRows, type AffineWords } from '../code-words.js';
import type { CodeBits, MatrixLayout } from '../matrix-layout.js';
import { rtn, type RtnConvention } from '../quantizers/rtn.js';

/**
 * Packs whole rows.
 * @throws VramError `unsupported` where a scale or minimum is above the f16 range.
 */
export function packGroupsCpu(
  values: Float32Array,
  layout: MatrixLayout & { readonly bits: CodeBits },
  convention: RtnConvention,
): AffineWords {
  const { columns, bits, groupSize, factors } = layout;
  const rows = values.length / columns;
  const quantizer = rtn({ convention });
  const input = { values, rows, columns, bits, groupSize, factors };
  return packRows(layout, quantizer.quantize(input));
}
