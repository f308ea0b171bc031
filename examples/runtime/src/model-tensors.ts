/**
 * The tensors that a model must have, under one set of names for all file formats.
 *
 *     embedding [vocabulary, hidden], finalNorm [hidden], head [vocabulary, hidden] unless tied
 *     layers.N.attentionNorm, layers.N.feedForwardNorm     [hidden]
 *     layers.N.query, layers.N.key, layers.N.value         [heads or kvHeads * headDim, hidden]
 *     layers.N.attentionOutput                             [hidden, heads * headDim]
 *     dense:   layers.N.gate, layers.N.up, layers.N.down   [intermediate, hidden]; down transposed
 *     experts: layers.N.router                             [experts, hidden]
 *              layers.N.experts.E.gate, .up, .down         as dense
 *
 * A file must have exactly these: one that is missing or has another shape is refused, and so is
 * one that would be left over, since ignoring a weight (a bias, say) changes what the model
 * computes.
 */
import type { ByteSource, GgmlType, MatrixLayout, PackedFile } from '@vramkit/packer';
import { VramError } from '@vramkit/core';
import type { ModelConfig } from './model-config.js';

/** Where the file holds a tensor as packed words. */
export interface PackedPlace {
  readonly file: PackedFile;
  readonly layout: MatrixLayout;
}

/** A tensor of a model file, as rows that are read when asked for. */
export interface ModelTensor {
  /** Name as in the head comment of `model-tensors.ts`. */
  readonly name: string;
  /** Name of the tensor in the file; several experts may share one. */
  readonly storedName: string;
  /** Element or block type; every row is whole blocks. Of a packed tensor, what `read` gives. */
  readonly type: GgmlType;
  /** Where the file holds words; `read` then gives their values. */
  readonly packed?: PackedPlace | undefined;
  /** 1 for a vector. */
  readonly rows: number;
  readonly columns: number;
  /** Bytes of one row in the file. */
  readonly rowBytes: number;
  /**
   * Reads `rowCount` rows from `rowStart`.
   * @throws VramError `invalid-argument` for rows outside, `corrupt-data` where the file got
   * shorter.
   */
  read(rowStart: number, rowCount: number, signal?: AbortSignal): Promise<Uint8Array>;
}

/** Where a file keeps a tensor: its rows are `rows` consecutive rows of a stored one. */
export interface StoredTensor {
  readonly source: ByteSource;
  readonly storedName: string;
  readonly type: GgmlType;
  readonly rows: number;
  readonly columns: number;
  readonly rowBytes: number;
  readonly packed?: PackedPlace | undefined;
  readonly read: ModelTensor['read'];
}

/**
 * Name and shape of every tensor that a model of this configuration has, one by one, so that a
 * file that claims more of them than it holds costs nothing.
 */
export function* expectedTensors(
  config: ModelConfig,
): Generator<readonly [name: string, shape: readonly [number, number]]> {
  const { hiddenSize, vocabularySize, headDim } = config;
  yield ['embedding', [vocabularySize, hiddenSize]];
  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `layers.${layer}.`;
    yield [`${prefix}attentionNorm`, [1, hiddenSize]];
    yield [`${prefix}query`, [config.heads * headDim, hiddenSize]];
    yield [`${prefix}key`, [config.kvHeads * headDim, hiddenSize]];
    yield [`${prefix}value`, [config.kvHeads * headDim, hiddenSize]];
    yield [`${prefix}attentionOutput`, [hiddenSize, config.heads * headDim]];
    yield [`${prefix}feedForwardNorm`, [1, hiddenSize]];
    if (config.experts === 0) yield* feedForward(prefix, config);
    else yield [`${prefix}router`, [config.experts, hiddenSize]];
    for (let expert = 0; expert < config.experts; expert++) {
      yield* feedForward(`${prefix}experts.${expert}.`, config);
    }
  }
  yield ['finalNorm', [1, hiddenSize]];
  if (!config.tiedEmbeddings) yield ['head', [vocabularySize, hiddenSize]];
}

function* feedForward(
  prefix: string,
  { hiddenSize, intermediateSize }: ModelConfig,
): Generator<readonly [string, readonly [number, number]]> {
  yield [`${prefix}gate`, [intermediateSize, hiddenSize]];
  yield [`${prefix}up`, [intermediateSize, hiddenSize]];
  yield [`${prefix}down`, [hiddenSize, intermediateSize]];
}

/** How a file format finds a tensor by our name. */
export interface TensorLookup {
  /** Path of the model, for errors. */
  readonly file: string;
  /** Finds a tensor, or gives the name that the file should have it under. */
  find(name: string, shape: readonly [number, number]): StoredTensor | string;
  /** Stored names that may be left over. */
  isIgnored(storedName: string): boolean;
  /** All stored names. */
  readonly storedNames: Iterable<string>;
}

/**
 * Finds and checks every tensor of a model.
 * @throws VramError `not-found` for a missing tensor, `corrupt-data` for a wrong shape,
 * `unsupported` for tensors that the model would not use; each names file and tensor.
 */
export function gatherTensors(
  config: ModelConfig,
  lookup: TensorLookup,
): ReadonlyMap<string, ModelTensor> {
  const { file } = lookup;
  const tensors = new Map<string, ModelTensor>();
  const used = new Set<string>();
  for (const [name, shape] of expectedTensors(config)) {
    const found = lookup.find(name, shape);
    if (typeof found === 'string') {
      throw new VramError('not-found', `${file}: there is no tensor '${found}' (${name})`, {
        context: { file, tensor: found, name },
      });
    }
    const { storedName, rows, columns } = found;
    if (rows !== shape[0] || columns !== shape[1]) {
      const sizes = `${rows} x ${columns}, not ${shape.join(' x ')}`;
      throw new VramError('corrupt-data', `${file}: tensor '${storedName}' is ${sizes}`, {
        context: { file, tensor: storedName, rows, columns, expected: shape },
      });
    }
    used.add(storedName);
    tensors.set(name, { ...found, name });
  }
  const left = [...lookup.storedNames].filter((name) => !used.has(name) && !lookup.isIgnored(name));
  if (left.length > 0) {
    const [first] = left;
    const rest = `${left.length} tensors are not part of a ${config.architecture} model`;
    throw new VramError('unsupported', `${file}: ${rest} as computed here, such as '${first}'`, {
      context: { file, tensor: first, count: left.length },
    });
  }
  return tensors;
}
