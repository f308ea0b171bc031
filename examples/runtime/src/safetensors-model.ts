/**
 * A Llama or Mixtral model in a folder as the Hugging Face hub lays it out: `config.json` beside
 * `model.safetensors`, or beside the shards that `model.safetensors.index.json` names.
 */
import { isVramError, VramError } from '@vramkit/core';
import {
  fileSource,
  isGgmlType,
  isPackedFile,
  matrixValues,
  hostMatrix,
  packedMatrixLayout,
  readPackedFile,
  readPackedRows,
  readSafetensors,
  readSafetensorsShards,
  readTensorRows,
  type ByteSource,
  type PackedFile,
  type PlacedTensor,
  type SafetensorsType,
  type TensorRange,
} from '@vramkit/packer';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { JsonFields, readJsonFile } from './json-fields.js';
import { checkConfig, type ModelConfig, type RopeScaling } from './model-config.js';
import type { StoredTensor, TensorLookup } from './model-tensors.js';

const MAX_CONFIG_BYTES = 1 << 20;

/** The tensors of one file or of all shards. */
export interface SafetensorsModel {
  readonly tensors: ReadonlyMap<
    string,
    { readonly source: ByteSource; readonly tensor: TensorRange<SafetensorsType> }
  >;
  /** The file itself where it is a packed one; `tensors` then has its sections. */
  readonly packed?: PackedFile;
  /** Closes every file. */
  close(): Promise<void>;
}

/**
 * Opens the safetensors files of `folder`, or just `file` in it.
 * @throws VramError `not-found` where there are none; what the readers throw.
 */
export async function openSafetensorsModel(
  folder: string,
  file: string | undefined,
  signal: AbortSignal | undefined,
): Promise<SafetensorsModel> {
  const options = signal === undefined ? {} : { signal };
  const indexPath = join(folder, 'model.safetensors.index.json');
  if (file === undefined && (await stat(indexPath).catch(() => undefined))?.isFile() === true) {
    const index = await fileSource(indexPath);
    try {
      const open = (name: string): Promise<ByteSource> => fileSource(join(folder, name));
      const shards = await readSafetensorsShards(index, { ...options, open });
      const tensors = [...shards.tensors].map(
        ([name, { file: shard, tensor }]) => [name, { source: shard.source, tensor }] as const,
      );
      return { tensors: new Map(tensors), close: () => shards.close() };
    } finally {
      await index.close();
    }
  }
  const source = await fileSource(file ?? join(folder, 'model.safetensors'));
  try {
    const header = await readSafetensors(source, options);
    const { tensors } = header;
    const packed = isPackedFile(header) ? { packed: await readPackedFile(source, options) } : {};
    const places = [...tensors].map(([name, tensor]) => [name, { source, tensor }] as const);
    return { tensors: new Map(places), ...packed, close: () => source.close() };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/**
 * Reads `config.json` of `folder`.
 * @throws VramError `unsupported` for another architecture or setting, `not-found` for a missing
 * file or field, `corrupt-data` for impossible numbers.
 */
export async function safetensorsConfig(folder: string): Promise<ModelConfig> {
  const path = join(folder, 'config.json');
  const config = await readJsonFile(path, MAX_CONFIG_BYTES);
  const isMixtral = checkSettings(path, config) === 'mixtral';
  const hiddenSize = config.requiredNumber('hidden_size');
  const heads = config.requiredNumber('num_attention_heads');
  const rope = config.fields('rope_parameters') ?? config.fields('rope_scaling');
  const generation = await readGenerationConfig(folder);
  const eosIds = config.numbers('eos_token_id');
  return checkConfig(path, {
    architecture: isMixtral ? 'mixtral' : 'llama',
    hiddenSize,
    layers: config.requiredNumber('num_hidden_layers'),
    heads,
    kvHeads: config.number('num_key_value_heads') ?? heads,
    headDim: config.number('head_dim') ?? hiddenSize / heads,
    intermediateSize: config.requiredNumber('intermediate_size'),
    vocabularySize: config.requiredNumber('vocab_size'),
    contextLength: config.requiredNumber('max_position_embeddings'),
    ropeTheta: rope?.number('rope_theta') ?? config.number('rope_theta') ?? 10_000,
    ropeScaling: ropeScaling(path, rope),
    ropeStyle: 'half',
    rmsNormEpsilon: config.requiredNumber('rms_norm_eps'),
    tiedEmbeddings: config.boolean('tie_word_embeddings') ?? false,
    experts: isMixtral ? config.requiredNumber('num_local_experts') : 0,
    expertsPerToken: isMixtral ? config.requiredNumber('num_experts_per_tok') : 0,
    bosId: config.numbers('bos_token_id')[0],
    eosId: eosIds[0],
    stopIds: [...new Set([...eosIds, ...generation.numbers('eos_token_id')])],
  });
}

async function readGenerationConfig(folder: string): Promise<JsonFields> {
  const path = join(folder, 'generation_config.json');
  try {
    return await readJsonFile(path, MAX_CONFIG_BYTES);
  } catch (error) {
    if (isVramError(error, 'not-found')) return new JsonFields(path, {});
    throw error;
  }
}

/** Refuses what is not computed here; gives the architecture. */
function checkSettings(path: string, config: JsonFields): string {
  const refuse = (key: string, value: unknown): never => {
    const message = `${path}: ${key} ${JSON.stringify(value)} is not computed here`;
    throw new VramError('unsupported', message, {
      context: { file: path, key, value: JSON.stringify(value) },
    });
  };
  const type = config.string('model_type') ?? '';
  if (!['llama', 'mistral', 'mixtral'].includes(type)) refuse('model_type', type);
  if ((config.string('hidden_act') ?? 'silu') !== 'silu') {
    refuse('hidden_act', config.value['hidden_act']);
  }
  for (const key of ['attention_bias', 'mlp_bias'] as const) {
    if (config.boolean(key) === true) refuse(key, true);
  }
  const window = config.number('sliding_window') ?? Infinity;
  if (window < config.requiredNumber('max_position_embeddings')) refuse('sliding_window', window);
  if (config.fields('quantization_config') !== undefined) {
    refuse('quantization_config', config.value['quantization_config']);
  }
  const rotary = config.number('partial_rotary_factor') ?? 1;
  if (rotary !== 1) refuse('partial_rotary_factor', rotary);
  return type;
}

function ropeScaling(path: string, rope: JsonFields | undefined): RopeScaling {
  const type = rope?.string('rope_type') ?? rope?.string('type') ?? 'default';
  if (rope === undefined || type === 'default') return { type: 'none' };
  const factor = rope.requiredNumber('factor');
  if (type === 'linear') return { type, factor };
  if (type === 'llama3') {
    return {
      type,
      factor,
      lowFreqFactor: rope.requiredNumber('low_freq_factor'),
      highFreqFactor: rope.requiredNumber('high_freq_factor'),
      originalContext: rope.requiredNumber('original_max_position_embeddings'),
    };
  }
  throw new VramError('unsupported', `${path}: RoPE scaling '${type}'`, {
    context: { file: path, scaling: type },
  });
}

const NAMES: Readonly<Record<string, string>> = {
  embedding: 'model.embed_tokens.weight',
  finalNorm: 'model.norm.weight',
  head: 'lm_head.weight',
  attentionNorm: 'input_layernorm.weight',
  query: 'self_attn.q_proj.weight',
  key: 'self_attn.k_proj.weight',
  value: 'self_attn.v_proj.weight',
  attentionOutput: 'self_attn.o_proj.weight',
  feedForwardNorm: 'post_attention_layernorm.weight',
  gate: 'mlp.gate_proj.weight',
  up: 'mlp.up_proj.weight',
  down: 'mlp.down_proj.weight',
  router: 'block_sparse_moe.gate.weight',
};
const EXPERT_NAMES: Readonly<Record<string, string>> = { gate: 'w1', down: 'w2', up: 'w3' };

/** Finds our tensors in the files of `model`. */
export function safetensorsLookup(
  path: string,
  model: SafetensorsModel,
  config: ModelConfig,
): TensorLookup {
  return {
    file: path,
    storedNames: model.packed?.tensors.keys() ?? model.tensors.keys(),
    isIgnored: (name) =>
      name.endsWith('rotary_emb.inv_freq') || (config.tiedEmbeddings && name === NAMES['head']),
    find: (name) => {
      const storedName = hubName(name);
      if (model.packed !== undefined) {
        const tensor = model.packed.tensors.get(storedName);
        return tensor === undefined ? storedName : storedPacked(model.packed, tensor);
      }
      const place = model.tensors.get(storedName);
      return place === undefined ? storedName : stored(place.source, place.tensor);
    },
  };
}

/** Our name as the hub spells it. */
function hubName(name: string): string {
  const [, layer, part = name] = /^layers\.(\d+)\.(.+)$/.exec(name) ?? [];
  const prefix = layer === undefined ? '' : `model.layers.${layer}.`;
  const [, expert, role = ''] = /^experts\.(\d+)\.(\w+)$/.exec(part) ?? [];
  return expert === undefined
    ? `${prefix}${NAMES[part] ?? part}`
    : `${prefix}block_sparse_moe.experts.${expert}.${EXPERT_NAMES[role] ?? role}.weight`;
}

function storedPacked(file: PackedFile, tensor: PlacedTensor): StoredTensor {
  const { name, shape, storage } = tensor;
  const { source, layout: plan } = file;
  const layout = packedMatrixLayout(tensor);
  if (layout === undefined) {
    const [section] = tensor.sections;
    const { type } = section ?? { type: storage.format };
    const offset = plan.dataOffset + (section?.begin ?? 0);
    const sizeBytes = (section?.end ?? 0) - (section?.begin ?? 0);
    const rows = shape.slice(0, -1).reduce((product, extent) => product * extent, 1);
    const rowBytes = sizeBytes / rows;
    // A dense tensor's type is one of safetensors.
    const range = { name, type: type as SafetensorsType, shape, offset, sizeBytes, rows, rowBytes };
    return stored(source, range);
  }
  const { rows, columns, codeWordsPerRow, scaleWordsPerRow } = layout;
  return {
    source,
    storedName: name,
    type: 'F32',
    rows,
    columns,
    rowBytes: (codeWordsPerRow + scaleWordsPerRow) * 4,
    packed: { layout, file },
    read: async (firstRow, rowCount, signal) => {
      const request = { firstRow, rowCount, signal };
      const [codes, scales] = await Promise.all(
        (['codes', 'scales'] as const).map(async (section) => {
          const bytes = await readPackedRows(file, tensor, { ...request, section });
          return new Uint32Array(bytes.slice().buffer);
        }),
      );
      const words = { codes: codes ?? new Uint32Array(), scales: scales ?? new Uint32Array() };
      const matrix = hostMatrix({ ...layout, rows: rowCount }, words);
      return new Uint8Array(matrixValues(matrix).buffer);
    },
  };
}

function stored(source: ByteSource, tensor: TensorRange<SafetensorsType>): StoredTensor {
  const { name, type, shape, rows, rowBytes } = tensor;
  if (!isGgmlType(type)) {
    throw new VramError('unsupported', `${source.name}: tensor '${name}' is ${type}`, {
      context: { file: source.name, tensor: name, type },
    });
  }
  return {
    source,
    storedName: name,
    type,
    rows,
    columns: shape[shape.length - 1] ?? 1,
    rowBytes,
    read: (rowStart, rowCount, signal) =>
      readTensorRows(source, tensor, rowStart, rowCount, signal),
  };
}
