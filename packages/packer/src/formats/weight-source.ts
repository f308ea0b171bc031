/**
 * Weights of a model file as matrices in f32, whatever the file: what packing reads from.
 *
 * Fused tensors of experts, [experts, rows, columns], are read as one matrix for each expert, named
 * `name.E`: rows lie one after the other, so no copy of the whole is made. Whoever stores experts
 * transposed, [experts, columns, rows], has another matrix there; shapes cannot tell, so the
 * runtime's expectation decides.
 */
import { assertArgument } from '@vramkit/core';
import type { ByteSource } from './byte-source.js';
import { denseToF32, type DenseType } from './dense.js';
import { dequantize } from './ggml-blocks.js';
import { isGgmlType, type GgmlType } from './ggml-types.js';
import { failUnsupported } from './format-error.js';
import type { TensorRange } from './tensor-range.js';

/** One matrix or vector of a model file. */
export interface SourceTensor {
  /** Name in the file, or `name.E` for an expert of a fused tensor. */
  readonly name: string;
  readonly type: GgmlType;
  /** Extents, slowest first; two for whatever can be packed. */
  readonly shape: readonly number[];
  /** Bytes in the file. */
  readonly sizeBytes: number;
  /** Reads the bytes as stored. */
  readBytes(signal?: AbortSignal): Promise<Uint8Array>;
}

/** Values of a source tensor in f32. */
export async function sourceValues(
  tensor: SourceTensor,
  signal?: AbortSignal,
): Promise<Float32Array> {
  const bytes = await tensor.readBytes(signal);
  return isDense(tensor.type) ? denseToF32(tensor.type, bytes) : dequantize(tensor.type, bytes);
}

/** Whether elements of the type are floats of their own. */
export function isDense(type: GgmlType): type is DenseType {
  return type === 'F32' || type === 'F16' || type === 'BF16';
}

/**
 * The tensors of one file.
 * @throws VramError `unsupported` for an element type that holds no weights, naming the tensor.
 */
export function sourceTensors(source: ByteSource, tensors: Iterable<TensorRange>): SourceTensor[] {
  return [...tensors].flatMap((tensor) => {
    const { name, type, shape, offset, sizeBytes } = tensor;
    if (!isGgmlType(type)) {
      return failUnsupported(source.name, `tensor '${name}' of ${type} holds no weights`, {
        tensor: name,
        type,
      });
    }
    const [experts = 1, ...rest] = shape;
    const parts = shape.length === 3 ? experts : 1;
    assertArgument(sizeBytes % parts === 0, `'${name}' is not ${parts} matrices of one size`);
    return Array.from({ length: parts }, (_, part): SourceTensor => {
      const size = sizeBytes / parts;
      return {
        name: parts === 1 && shape.length !== 3 ? name : `${name}.${part}`,
        type,
        shape: shape.length === 3 ? rest : shape,
        sizeBytes: size,
        readBytes: (signal) => source.read(offset + part * size, size, signal),
      };
    });
  });
}
