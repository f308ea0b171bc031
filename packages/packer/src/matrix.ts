/**
 * A weight matrix on the device, split so that no binding exceeds the device's limits.
 *
 * Mental model: a list of segments, each a range of whole rows with its own codes and scales. A
 * kernel runs once per segment and each run writes its own columns of the result, so the split
 * shows nowhere else. Creation takes all memory or none.
 */
import {
  allocate,
  assertArgument,
  fail,
  f32ToBf16,
  f32ToF16,
  throwIfAborted,
  type Allocation,
  type BufferRange,
  type HostData,
  type MemoryResource,
  type Uploader,
  type VramDevice,
} from '@vramkit/core';
import {
  isAffine,
  matrixBytes,
  matrixLayout,
  type MatrixLayout,
  type MatrixShape,
} from './matrix-layout.js';

/** Options of {@link createMatrix}. */
export interface MatrixOptions extends MatrixShape {
  /** Name in errors, traces and memory reports. */
  readonly label: string;
  /** Where the memory comes from. Default: the device's budgeted memory. */
  readonly memory?: MemoryResource;
}

/** Whole rows of a matrix in buffers of their own. */
export interface MatrixSegment {
  /** First row of the matrix in this segment. */
  readonly firstRow: number;
  readonly rowCount: number;
  /** Codes or dense elements, `rowCount * codeWordsPerRow` words. */
  readonly codes: BufferRange;
  /**
   * Scales, `rowCount * scaleWordsPerRow` words. A dense format has one unused word, so that all
   * formats are bound alike without binding anything twice.
   */
  readonly scales: BufferRange;
}

/**
 * Rows for {@link DeviceMatrix.upload}, in the words of `MatrixLayout`. `codes` are the words of an
 * affine format; `dense` are elements: floats of any dense format, or the bit patterns of a 16-bit
 * one as a `Uint16Array`.
 */
export type MatrixRows =
  | { readonly codes: Uint32Array; readonly scales: Uint32Array }
  | { readonly dense: Float32Array | Uint16Array };

/** Options of {@link DeviceMatrix.upload}. */
export interface MatrixUploadOptions {
  /** Stops between chunks; rows already written stay written. */
  readonly signal?: AbortSignal;
}

/** Weights on the device; see {@link createMatrix}. */
export class DeviceMatrix {
  readonly device: VramDevice;
  readonly layout: MatrixLayout;
  readonly label: string;
  /** Bytes taken for codes and scales. */
  readonly sizeBytes: number;
  readonly #segments: readonly MatrixSegment[];
  readonly #release: () => void;
  #disposed = false;

  /** Use {@link createMatrix}. */
  constructor(
    device: VramDevice,
    layout: MatrixLayout,
    label: string,
    memory: { readonly segments: readonly MatrixSegment[]; readonly release: () => void },
  ) {
    this.device = device;
    this.layout = layout;
    this.label = label;
    this.sizeBytes = matrixBytes(layout);
    this.#segments = memory.segments;
    this.#release = memory.release;
  }

  /** Output features. */
  get rows(): number {
    return this.layout.rows;
  }

  /** Input features. */
  get columns(): number {
    return this.layout.columns;
  }

  /** How elements are stored. */
  get format(): MatrixLayout['format'] {
    return this.layout.format;
  }

  /** Columns that share a scale, or 0 for dense formats. */
  get groupSize(): MatrixLayout['groupSize'] {
    return this.layout.groupSize;
  }

  /**
   * The row ranges in order; every row is in exactly one.
   * @throws VramError `disposed`.
   */
  get segments(): readonly MatrixSegment[] {
    if (this.#disposed) fail('disposed', `matrix '${this.label}' was disposed`);
    return this.#segments;
  }

  /**
   * Writes whole rows from `firstRow` on; how many follows from the data. Resolves when the data
   * may be reused; work submitted later sees the rows.
   * @throws VramError `invalid-argument` for data of another format, a part of a row or rows that
   * leave the matrix; `aborted`; what `Uploader.upload` throws.
   */
  async upload(
    uploader: Uploader,
    firstRow: number,
    data: MatrixRows,
    options: MatrixUploadOptions = {},
  ): Promise<void> {
    const { codeWordsPerRow, scaleWordsPerRow, rows } = this.layout;
    const { codes, scales } = wordsOf(this.layout, data);
    const rowCount = codes.length / codeWordsPerRow;
    const context = { label: this.label, firstRow, rowCount, rows };
    assertArgument(
      Number.isInteger(rowCount) && scales.length === rowCount * scaleWordsPerRow,
      `${codes.length} words of codes and ${scales.length} of scales are not whole rows of ` +
        `${codeWordsPerRow} and ${scaleWordsPerRow}`,
      context,
    );
    assertArgument(
      Number.isSafeInteger(firstRow) && firstRow >= 0 && firstRow + rowCount <= rows,
      `rows ${firstRow} + ${rowCount} leave '${this.label}' of ${rows} rows`,
      context,
    );
    for (const segment of this.segments) {
      const start = Math.max(firstRow, segment.firstRow);
      const end = Math.min(firstRow + rowCount, segment.firstRow + segment.rowCount);
      if (start >= end) continue;
      throwIfAborted(options.signal);
      const put = (range: BufferRange, words: Uint32Array, perRow: number): Promise<void> => {
        const part = words.subarray((start - firstRow) * perRow, (end - firstRow) * perRow);
        return uploader.upload(range, part, (start - segment.firstRow) * perRow * 4, options);
      };
      await put(segment.codes, codes, codeWordsPerRow);
      await put(segment.scales, scales, scaleWordsPerRow);
    }
  }

  /** Gives the memory back; idempotent. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The words of codes and scales that `data` stands for. */
function wordsOf(
  layout: MatrixLayout,
  data: MatrixRows,
): { readonly codes: Uint32Array; readonly scales: Uint32Array } {
  const { format } = layout;
  assertArgument(
    isAffine(format) === 'codes' in data,
    `${format} takes ${isAffine(format) ? 'codes and scales' : 'dense elements'}`,
    { format },
  );
  if ('codes' in data) return data;
  const { dense } = data;
  assertArgument(
    dense instanceof Float32Array || format !== 'f32',
    'f32 is written from a Float32Array',
    { format },
  );
  assertArgument(
    dense.length % layout.columns === 0,
    `${dense.length} elements are not whole rows of ${layout.columns}`,
  );
  return { codes: denseWords(format, dense), scales: new Uint32Array() };
}

function denseWords(format: string, dense: Float32Array | Uint16Array): Uint32Array {
  let source: HostData = dense;
  if (dense instanceof Float32Array && format !== 'f32') {
    const narrow = format === 'f16' ? f32ToF16 : f32ToBf16;
    source = Uint16Array.from(dense, narrow);
  }
  const { buffer, byteOffset, byteLength } = source;
  if (byteOffset % 4 === 0) return new Uint32Array(buffer, byteOffset, byteLength / 4);
  return new Uint32Array(new Uint8Array(buffer, byteOffset, byteLength).slice().buffer);
}

/**
 * Allocates a matrix, uninitialised; the caller fills it with {@link DeviceMatrix.upload} and
 * disposes it. Memory is taken completely or not at all.
 * @throws VramError `out-of-memory` naming kind and shortfall; `invalid-argument` for a shape that
 * the format does not allow; `unsupported` where one row exceeds the device's binding limit.
 * @example
 * ```ts
 * import { openDevice, Uploader } from '@vramkit/core';
 * import { createMatrix } from '@vramkit/packer';
 * using device = await openDevice();
 * using uploader = new Uploader(device);
 * using weights = createMatrix(device, { rows: 2, columns: 4, format: 'f16', label: 'w' });
 * await weights.upload(uploader, 0, { dense: new Float32Array([1, 2, 3, 4, 5, 6, 7, 8]) });
 * ```
 */
export function createMatrix(device: VramDevice, options: MatrixOptions): DeviceMatrix {
  device.assertUsable();
  const layout = matrixLayout(options);
  const { rows, codeWordsPerRow, scaleWordsPerRow } = layout;
  // Scales may take more than codes: those of 3 bits in groups of 16 have the lowest bits too.
  const rowBytes = Math.max(codeWordsPerRow, scaleWordsPerRow) * 4;
  const { maxStorageBufferBindingSize, maxBufferSize } = device.limits;
  const limitBytes = Math.min(maxStorageBufferBindingSize, maxBufferSize);
  const rowsPerSegment = Math.floor(limitBytes / rowBytes);
  if (rowsPerSegment === 0) {
    fail('unsupported', `a row of '${options.label}' exceeds the binding limit; use fewer bits`, {
      rowBytes,
      limitBytes,
    });
  }
  const memory = options.memory ?? device.memory;
  const taken: Allocation[] = [];
  const release = (): void => {
    for (const allocation of taken.splice(0)) memory.free(allocation);
  };
  const take = (words: number): Allocation => {
    const request = { sizeBytes: words * 4, kind: 'weights', label: options.label } as const;
    const allocation = allocate(memory, request);
    taken.push(allocation);
    return allocation;
  };
  const segments: MatrixSegment[] = [];
  try {
    for (let firstRow = 0; firstRow < rows; firstRow += rowsPerSegment) {
      const rowCount = Math.min(rowsPerSegment, rows - firstRow);
      const codes = take(rowCount * codeWordsPerRow);
      const scales = take(Math.max(1, rowCount * scaleWordsPerRow));
      segments.push({ firstRow, rowCount, codes, scales });
    }
  } catch (error) {
    release();
    throw error;
  }
  return new DeviceMatrix(device, layout, options.label, { segments, release });
}
