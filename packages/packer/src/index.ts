/** Quantizers, packed weights, the products that read them, and file formats. */
export {
  codeAt,
  factorsAt,
  packRows,
  unpackRows,
  type AffineCodes,
  type AffineWords,
} from './code-words.js';
export {
  compareLogits,
  compareWeights,
  errorMetrics,
  type ErrorMetrics,
  type LogitMetrics,
} from './error-metrics.js';
export { factorCodec, type FactorCodec } from './factor-codec.js';
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
export {
  importanceOf,
  readImatrix,
  type Imatrix,
  type ImatrixEntry,
  type ImportanceOptions,
  type ReadImatrixOptions,
} from './formats/imatrix.js';
export type {
  GgufArray,
  GgufMetadata,
  GgufNumberType,
  GgufValue,
} from './formats/gguf-metadata.js';
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
export {
  elementAt,
  hostMatrix,
  matrixValues,
  rowValues,
  type HostMatrix,
} from './kernels/host-matrix.js';
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
  affineMatrixFormat,
  bitsPerWeight,
  isAffine,
  MATRIX_FORMATS,
  matrixBytes,
  matrixLayout,
  type AffineMatrixFormat,
  type CodeBits,
  type FactorFormat,
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
export {
  findNonFinite,
  quantizeMatrix,
  type GroupChoice,
  type QuantizeOptions,
} from './quantize-matrix.js';
export { gptq, type GptqOptions } from './quantizers/gptq.js';
export type { ColumnOrder } from './quantizers/inverse-factor.js';
export { hqq, type HqqOptions } from './quantizers/hqq.js';
export { activationMoments, columnPower, outputErrorOf } from './quantizers/moments.js';
export { optRtn, type OptRtnOptions } from './quantizers/opt-rtn.js';
export type { GroupFit, GroupOfWeights, QuantizeInput, Quantizer } from './quantizers/quantizer.js';
export { rtn, type RtnConvention, type RtnOptions } from './quantizers/rtn.js';
export { signRound, type SignRoundOptions } from './quantizers/sign-round.js';
export {
  allocateBits,
  bytesForBits,
  reachableBytes,
  type AllocatedUnit,
  type Allocation,
  type AllocationUnit,
  type Allocator,
  type WidthChoice,
} from './allocators/allocator.js';
export {
  kMeans,
  kMeansAllocator,
  uniformAllocator,
  type KMeansOptions,
} from './allocators/k-means.js';
export {
  knapsackAllocator,
  lagrangianAllocator,
  type KnapsackOptions,
} from './allocators/knapsack.js';
export {
  applyRules,
  matchesName,
  ruleFor,
  tieUnits,
  unmatchedRules,
  widthsOf,
  type TiedUnits,
  type WidthRule,
} from './allocators/rules.js';
export {
  activationFrequency,
  hybrid,
  type FrequencyOptions,
  type HybridPart,
} from './scorers/frequency.js';
export {
  estimateHessianTrace,
  hessianTrace,
  type CalibrationLoss,
  type HessianTraceOptions,
  type TraceEstimate,
} from './scorers/hessian-trace.js';
export { frobeniusNorm, mopeq, mopeqProbe, type MopeqProbeOptions } from './scorers/mopeq.js';
export {
  imatrixError,
  measureUnit,
  outputError,
  type MeasureOptions,
} from './scorers/output-error.js';
export { correlationReport, rankCorrelation } from './scorers/rank-correlation.js';
export { cachedScorer, unitDigest, type ScoreStore } from './scorers/score-cache.js';
export type { LoadedUnit, Scorer, UnitTensor } from './scorers/scorer.js';
export { fileSink, memorySink, type ByteSink, type FileSinkOptions } from './formats/file-sink.js';
export { toGgmlBlocks, type WritableBlock } from './formats/ggml-writer.js';
export { writeGguf, type GgufTensorToWrite, type WriteGgufOptions } from './formats/gguf-writer.js';
export {
  fromMatMulNBits,
  matMulNBitsValues,
  toMatMulNBits,
  type MatMulNBits,
} from './formats/ort.js';
export {
  isPackedFile,
  PackedWriter,
  readPackedFile,
  readPackedRows,
  readPackedTensors,
  verifyPacked,
  type PackedFile,
  type ReadPackedTensorsOptions,
} from './formats/packed-file.js';
export {
  PACKED_ALIGNMENT,
  packedMatrixLayout,
  planPackedFile,
  type PackedLayout,
  type PackedSection,
  type PackedStorage,
  type PackedTensor,
  type PlacedTensor,
} from './formats/packed-layout.js';
export {
  isDense,
  sourceTensors,
  sourceValues,
  type ExpectedMatrix,
  type SourceTensor,
  type SourceTensorsOptions,
} from './formats/weight-source.js';
export {
  packModel,
  planModel,
  type ModelPlan,
  type PackModelOptions,
  type PackProgress,
  type PlanModelOptions,
  type TensorPlan,
} from './pack-model.js';
export {
  createExpertArena,
  ExpertArena,
  type ExpertArenaOptions,
  type ExpertSlot,
  type ExpertWidth,
} from './expert-arena.js';
export {
  createExpertCache,
  ExpertCache,
  type ExpertCacheOptions,
  type ExpertCacheStats,
  type ExpertReadOptions,
  type ExpertRequest,
} from './expert-cache.js';
export { planExpertSlots, type ExpertDemand } from './expert-slots.js';
export { PackThreads, type PackThreadsOptions } from './pack-threads.js';
export { packOnDevice, type PackOnDeviceOptions } from './pack-on-device.js';
