/**
 * Weights of a model file as matrices in f32, whatever the file: what packing reads from.
 *
 * Fused tensors of experts, [experts, rows, columns], are read as one matrix for each expert, named
 * `name.E`: rows lie one after the other, so no copy of the whole is made. A matrix that is stored
 * the other way round, [columns, rows], is turned when it is read, one expert at a time; that it is
 * follows from the shape that the caller expects, or the caller says so where it is square.
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

/** Values of a source tensor in f32, into `out` where given, which has their number. */
export async function sourceValues(
  tensor: SourceTensor,
  signal?: AbortSignal,
  out?: Float32Array,
): Promise<Float32Array> {
  const bytes = await tensor.readBytes(signal);
  if (isDense(tensor.type)) return denseToF32(tensor.type, bytes, out);
  const values = dequantize(tensor.type, bytes);
  if (out === undefined) return values;
  assertArgument(values.length === out.length, `'${tensor.name}' has ${values.length} values`);
  out.set(values);
  return out;
}

/** Whether elements of the type are floats of their own. */
export function isDense(type: GgmlType): type is DenseType {
  return type === 'F32' || type === 'F16' || type === 'BF16';
}

/** The matrix that a tensor is to give, or each expert of a fused one. */
export interface ExpectedMatrix {
  readonly rows: number;
  readonly columns: number;
  /** Whether it is stored as [columns, rows]. Default: by shape; as it is where it is square. */
  readonly transposed?: boolean;
}

/** Options of {@link sourceTensors}. */
export interface SourceTensorsOptions {
  /** What a tensor of the file is to give, by its name. Default: whatever is stored. */
  readonly expected?: (name: string) => ExpectedMatrix | undefined;
}

/**
 * The tensors of one file.
 * @throws VramError `unsupported` for an element type that holds no weights, or blocks that are
 * stored the other way round; `invalid-argument` where a matrix has another shape than expected,
 * both naming the tensor.
 */
export function sourceTensors(
  source: ByteSource,
  tensors: Iterable<TensorRange>,
  options: SourceTensorsOptions = {},
): SourceTensor[] {
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
    // Of nothing there may be any number of parts, far more than fit in memory.
    assertArgument(
      sizeBytes % parts === 0 && (parts === 1 || sizeBytes > 0),
      `'${name}' is not ${parts} matrices of one size`,
      { tensor: name, shape, sizeBytes },
    );
    const stored = shape.length === 3 ? rest : shape;
    const turned = isTurned(source.name, name, stored, options.expected?.(name));
    if (turned && !isDense(type)) {
      failUnsupported(source.name, `'${name}' holds ${type} blocks of columns`, {
        tensor: name,
        type,
      });
    }
    return Array.from({ length: parts }, (_, part): SourceTensor => {
      const size = sizeBytes / parts;
      return {
        name: parts === 1 && shape.length !== 3 ? name : `${name}.${part}`,
        type,
        shape: turned ? [...stored].reverse() : stored,
        sizeBytes: size,
        readBytes: async (signal) => {
          const bytes = await source.read(offset + part * size, size, signal);
          return turned ? turn(bytes, stored[1] ?? 1, type === 'F32' ? 4 : 2) : bytes;
        },
      };
    });
  });
}

/** Whether a matrix is stored the other way round. */
function isTurned(
  file: string,
  name: string,
  stored: readonly number[],
  expected: ExpectedMatrix | undefined,
): boolean {
  if (expected === undefined) return false;
  const { rows, columns } = expected;
  const isAs = (a: number, b: number): boolean =>
    stored.length === 2 && stored[0] === a && stored[1] === b;
  const turned = expected.transposed ?? !isAs(rows, columns);
  assertArgument(
    turned ? isAs(columns, rows) : isAs(rows, columns),
    `${file}: '${name}' is [${stored.join(', ')}], not a matrix of ${rows} by ${columns}`,
    { tensor: name, stored, rows, columns },
  );
  return turned;
}

/** Elements of `elementBytes` in rows of `rowLength`, with rows and columns exchanged. */
function turn(bytes: Uint8Array, rowLength: number, elementBytes: 2 | 4): Uint8Array {
  const Elements = elementBytes === 4 ? Uint32Array : Uint16Array;
  const from = new Elements(new Uint8Array(bytes).buffer);
  const to = new Elements(from.length);
  const rows = from.length / rowLength;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < rowLength; column++) {
      to[column * rows + row] = from[row * rowLength + column] ?? 0;
    }
  }
  return new Uint8Array(to.buffer);
}
