/**
 * Packs the tensors of a model file one after the other into a packed file.
 *
 * Mental model: a plan says how each tensor is stored, and with it the exact size of the file,
 * before a weight is read. Then one tensor at a time is read, quantized and written where the plan
 * has it. Host memory is bounded by the largest tensor: its bytes, its f32 values, its codes. With
 * threads it is as well, since they share the rows of one tensor (pack-threads.ts). An interrupted
 * run goes on from the checksums of the tensors it has written; the file appears under its name at
 * the end.
 */
import {
  assertArgument,
  checkInteger,
  fail,
  isVramError,
  throwIfAborted,
  VramError,
  type Clock,
  type SpawnWorker,
} from '@vramkit/core';
import { affineFormat, toAffine } from './formats/affine.js';
import { denseToF32, f32ArrayToF16 } from './formats/dense.js';
import type { ByteSink } from './formats/file-sink.js';
import { dequantize } from './formats/ggml-blocks.js';
import type { GgmlType } from './formats/ggml-types.js';
import { PackedWriter } from './formats/packed-file.js';
import {
  packedMatrixLayout,
  planPackedFile,
  type PackedLayout,
  type PackedStorage,
} from './formats/packed-layout.js';
import { isDense, sourceValues, type SourceTensor } from './formats/weight-source.js';
import type { HostMatrix } from './kernels/host-matrix.js';
import {
  affineMatrixFormat,
  type CodeBits,
  type FactorFormat,
  type MatrixLayout,
} from './matrix-layout.js';
import { PackThreads } from './pack-threads.js';
import {
  groupSizeFor,
  quantizeMatrix,
  type GroupChoice,
  type QuantizeOptions,
} from './quantize-matrix.js';
import { recipeOf } from './quantizers/built-in.js';
import type { Quantizer } from './quantizers/quantizer.js';

/** The least magnitude that rounds to an infinity in f16. */
const F16_END = 65_520;

/** How one tensor is stored. */
export type TensorPlan =
  | {
      readonly bits: CodeBits;
      readonly groupSize?: GroupChoice;
      /** How scales and minimums are stored. Default: 'f16'. */
      readonly factors?: FactorFormat;
      readonly quantizer: Quantizer;
      readonly importance?: Float32Array | undefined;
      readonly moments?: Float64Array | undefined;
    }
  /**
   * As it is: floats stay what they are; matrices of GGUF blocks keep their codes, as `toAffine`
   * converts them, with 0 to 3.5 bits a weight more; vectors of blocks become F16.
   */
  | 'keep';

/** Options of {@link planModel}. */
export interface PlanModelOptions {
  /** How a tensor is stored; asked once for each. */
  readonly plan: (tensor: SourceTensor) => TensorPlan;
  /** Whether tensors that are quantized already may be quantized again. Default: false. */
  readonly allowRequantize?: boolean;
  /** See `QuantizeOptions`. Default: 'reject'. */
  readonly unevenGroups?: 'reject' | 'smaller';
  /** See `QuantizeOptions`. Default: 'reject'. */
  readonly nonFinite?: 'reject' | 'zero';
  /** Free text for the manifest. Default: none. */
  readonly notes?: Readonly<Record<string, string>>;
}

/** A packing that has not begun: exact sizes, no weight read. */
export interface ModelPlan {
  readonly layout: PackedLayout;
  readonly tensors: readonly SourceTensor[];
  readonly plans: ReadonlyMap<string, TensorPlan>;
  readonly options: PlanModelOptions;
}

/**
 * Plans a packed file.
 * @throws VramError `invalid-argument` for groups that do not divide a tensor and for tensors that
 * are quantized already; what `planPackedFile` throws.
 */
export function planModel(tensors: readonly SourceTensor[], options: PlanModelOptions): ModelPlan {
  const plans = new Map<string, TensorPlan>();
  const packed = tensors.map((tensor) => {
    const { name, type, shape } = tensor;
    const plan = options.plan(tensor);
    plans.set(name, plan);
    if (plan === 'keep') {
      return { name, shape, storage: keptStorage(type, shape) };
    }
    if (!isDense(type) && options.allowRequantize !== true) {
      fail('invalid-argument', `'${name}' is ${type} already: allowRequantize packs it again`, {
        tensor: name,
        type,
      });
    }
    assertArgument(shape.length === 2, `'${name}' has ${shape.length} extents, not 2`, {
      tensor: name,
      shape,
    });
    const { unevenGroups = 'reject' } = options;
    const groupSize = groupSizeFor(shape[1] ?? 0, plan.groupSize ?? 32, unevenGroups);
    const format = affineMatrixFormat(plan.bits);
    // Named only where it is not the default, so that other files stay as they were.
    const factors = plan.factors === 'compact' && { factors: plan.factors };
    const storage = { format, groupSize, ...factors, quantizer: plan.quantizer.name };
    return { name, shape, storage };
  });
  return { layout: planPackedFile(packed, options.notes), tensors, plans, options };
}

/** How a tensor is stored that is not quantized here. */
function keptStorage(type: GgmlType, shape: readonly number[]): PackedStorage {
  if (isDense(type)) return { format: type };
  if (shape.length !== 2) return { format: 'F16' };
  const { bits, groupSize } = affineFormat(type);
  return { format: affineMatrixFormat(bits), groupSize, quantizer: type };
}

/** Progress of {@link packModel}; plain data. */
export interface PackProgress {
  /** The tensor that was just written. */
  readonly tensor: string;
  readonly checksum: string;
  /** Bytes of the input read so far, and in all. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** What is left will take so long, by the bytes that this run has packed; milliseconds. */
  readonly msLeft: number;
}

/** Options of {@link packModel}. */
export interface PackModelOptions {
  /** Checksums of tensors that an earlier run wrote to the same sink. Default: none. */
  readonly done?: ReadonlyMap<string, string>;
  /** Called after each tensor; awaited, so that it can keep a journal. */
  readonly onProgress?: (progress: PackProgress) => void | Promise<void>;
  /** Called with each packed matrix and its weights, for error reports. */
  readonly onMatrix?: (name: string, matrix: HostMatrix, weights: Float32Array) => void;
  /** Stops between tensors, and threads within one; what was written stays in the part. */
  readonly signal?: AbortSignal;
  /**
   * Threads that quantize, each some rows of a matrix; 0 and 1: this thread alone. Every number
   * gives the same bytes. A quantizer of your own, and `gptq` with a `fit`, is a function, which no
   * thread can be sent: it stays on this thread. Threads hold the weights of the largest matrix in
   * shared memory and, for quantizers that need moments, a copy of these; gptq takes twice their
   * bytes beside it. A page has shared memory where it is cross-origin isolated. Default: 1.
   */
  readonly workers?: number;
  /** Starts a thread. Default: Node's worker threads, or a page's workers. */
  readonly spawn?: SpawnWorker;
  /** Clock of the estimate, milliseconds. Default: `performance.now`. */
  readonly now?: Clock;
}

/**
 * Carries out a plan and commits the file; the caller closes the sink.
 * @throws VramError `aborted`; `corrupt-data` for weights that are not finite and `unsupported` for
 * scales above the f16 range, naming the tensor; `worker-lost` where a thread died, after which
 * packing can be resumed; `unsupported` where the runtime has no threads to share memory with; what
 * reading, `toAffine`, the quantizer and the sink throw.
 */
export async function packModel(
  plan: ModelPlan,
  sink: ByteSink,
  options: PackModelOptions = {},
): Promise<void> {
  const { done = new Map<string, string>(), signal, now = () => performance.now() } = options;
  const writer = new PackedWriter(sink, plan.layout, done);
  const totalBytes = plan.tensors.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const left = plan.tensors.filter(({ name }) => !done.has(name));
  let leftBytes = left.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  let packedBytes = 0;
  const start = now();
  const threads = startThreads(plan, left, options);
  try {
    for (const tensor of left) {
      throwIfAborted(signal);
      const sections = await packTensor(plan, tensor, options, threads).catch((error: unknown) => {
        throw named(error, tensor.name);
      });
      const checksum = await writer.write(tensor.name, sections);
      packedBytes += tensor.sizeBytes;
      leftBytes -= tensor.sizeBytes;
      await options.onProgress?.({
        tensor: tensor.name,
        checksum,
        doneBytes: totalBytes - leftBytes,
        totalBytes,
        msLeft: ((now() - start) * leftBytes) / packedBytes,
      });
    }
  } finally {
    await threads?.dispose();
  }
  await writer.finish();
}

/** An error about weights; with the name of their tensor where it has none. */
function named(error: unknown, tensor: string): unknown {
  if (!isVramError(error, 'unsupported') && !isVramError(error, 'corrupt-data')) return error;
  const { code, context, message } = error;
  if (context['tensor'] !== undefined) return error;
  const what = message.slice(`${code}: `.length);
  return new VramError(code, `'${tensor}': ${what}`, {
    cause: error,
    context: { ...context, tensor },
  });
}

/** Threads with room for the largest tensor, where any is for them. */
function startThreads(
  plan: ModelPlan,
  left: readonly SourceTensor[],
  { workers = 1, spawn }: PackModelOptions,
): PackThreads | undefined {
  checkInteger('workers', workers);
  const placed = new Map(plan.layout.tensors.map((tensor) => [tensor.name, tensor]));
  const matrices = left.flatMap(({ name }): [MatrixLayout, Quantizer][] => {
    const how = plan.plans.get(name) ?? 'keep';
    const tensor = placed.get(name);
    const layout = tensor && packedMatrixLayout(tensor);
    if (how === 'keep' || layout === undefined) return [];
    return recipeOf(how.quantizer) === undefined ? [] : [[layout, how.quantizer]];
  });
  if (workers < 2 || matrices.length === 0) return undefined;
  const threads = new PackThreads({ workers, ...(spawn && { spawn }) });
  threads.reserve(matrices);
  return threads;
}

async function packTensor(
  plan: ModelPlan,
  tensor: SourceTensor,
  { onMatrix, signal }: PackModelOptions,
  threads: PackThreads | undefined,
): Promise<Uint8Array[]> {
  const tensorPlan = plan.plans.get(tensor.name) ?? 'keep';
  if (tensorPlan === 'keep') return keptSections(tensor, signal);
  const [rows = 0, columns = 0] = tensor.shape;
  const { unevenGroups = 'reject', nonFinite = 'reject' } = plan.options;
  const options: QuantizeOptions = {
    ...tensorPlan,
    name: tensor.name,
    rows,
    columns,
    unevenGroups,
    nonFinite,
  };
  if (threads === undefined || recipeOf(tensorPlan.quantizer) === undefined) {
    const values = await sourceValues(tensor, signal);
    const matrix = quantizeMatrix(values, options);
    onMatrix?.(tensor.name, matrix, values);
    return sectionsOf(matrix);
  }
  const values = await sourceValues(tensor, signal, threads.values(rows * columns));
  // The next tensor overwrites shared memory, so what the caller may keep is a copy.
  const weights = onMatrix && values.slice();
  const matrix = await threads.quantize(values, options, signal);
  if (weights !== undefined) onMatrix?.(tensor.name, matrix, weights);
  return sectionsOf(matrix);
}

async function keptSections(tensor: SourceTensor, signal?: AbortSignal): Promise<Uint8Array[]> {
  const { type, shape } = tensor;
  const bytes = await tensor.readBytes(signal);
  if (isDense(type)) {
    checkFinite(tensor, denseToF32(type, bytes));
    return [bytes];
  }
  const [rows = 0, columns = 0] = shape;
  if (shape.length === 2) return sectionsOf(toAffine(type, bytes, rows, columns));
  const values = dequantize(type, bytes);
  checkFinite(tensor, values);
  const large = values.findIndex((value) => Math.abs(value) >= F16_END);
  if (large >= 0) {
    fail('unsupported', `'${tensor.name}' is above the f16 range at ${large}`, {
      tensor: tensor.name,
      index: large,
    });
  }
  return [bytesOf(f32ArrayToF16(values))];
}

function sectionsOf({ codes, scales }: Pick<HostMatrix, 'codes' | 'scales'>): Uint8Array[] {
  return [bytesOf(codes), bytesOf(scales)];
}

function checkFinite(tensor: SourceTensor, values: Float32Array): void {
  const index = values.findIndex((value) => !Number.isFinite(value));
  if (index < 0) return;
  fail('corrupt-data', `'${tensor.name}' is not finite at ${index}`, {
    tensor: tensor.name,
    index,
  });
}

function bytesOf(array: Uint32Array | Uint16Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}
