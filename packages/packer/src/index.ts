/** Packed weights, the products that read them, and the file formats they come from. */
export {
  affineFormat,
  affineValues,
  toAffine,
  type AffineFormat,
  type AffineMatrix,
  type QuantizedType,
} from './formats/affine.js';
export { blobSource, bytesSource, checkRange, type ByteSource } from './formats/byte-source.js';
export {
  bf16ArrayToF32,
  denseToF16,
  denseToF32,
  f16ArrayToF32,
  f32ArrayToBf16,
  f32ArrayToF16,
  type DenseType,
} from './formats/dense.js';
export { fileSource } from './formats/file-source.js';
export { dequantize } from './formats/ggml-blocks.js';
export {
  GGML_TYPES,
  ggmlBlock,
  isGgmlType,
  type GgmlBlock,
  type GgmlType,
} from './formats/ggml-types.js';
export type { GgufArray, GgufMetadata, GgufValue } from './formats/gguf-metadata.js';
export { readGguf, type GgufFile, type ReadGgufOptions } from './formats/gguf.js';
export {
  readSafetensorsShards,
  type ReadShardsOptions,
  type SafetensorsShards,
} from './formats/safetensors-shards.js';
export {
  readSafetensors,
  type SafetensorsFile,
  type SafetensorsType,
} from './formats/safetensors.js';
export { readTensorRows, type TensorRange } from './formats/tensor-range.js';
export { gatherRows, type GatherRowsArguments } from './gather.js';
export { gatherRowsCpu } from './kernels/gather-rows.cpu.js';
export { elementAt, hostMatrix, rowValues, type HostMatrix } from './kernels/host-matrix.js';
export {
  indexedMatmulCpu,
  matmulCpu,
  type IndexedMatmulCpuArguments,
  type MatmulCpuArguments,
} from './kernels/matmul.cpu.js';
export { indexedMatmul, type IndexedMatmulArguments } from './indexed-matmul.js';
export { defaultMatmulTuning, type MatmulTuning } from './matmul-tuning.js';
export { tuneMatmul, type TuneMatmulOptions } from './tune-matmul.js';
export { matmul, type MatmulArguments } from './matmul.js';
export {
  isAffine,
  MATRIX_FORMATS,
  matrixBytes,
  matrixLayout,
  type GroupSize,
  type MatrixFormat,
  type MatrixLayout,
  type MatrixShape,
} from './matrix-layout.js';
export {
  createMatrix,
  DeviceMatrix,
  type MatrixOptions,
  type MatrixRows,
  type MatrixSegment,
  type MatrixUploadOptions,
} from './matrix.js';
