/**
 * A Llama or Mixtral model in a GGUF file: its configuration and where its tensors are.
 *
 * GGUF calls both architectures `llama`; experts make the difference. Query and key rows are
 * permuted for the interleaved rotary embedding. Long-context scaling of Llama 3 is a tensor of
 * divisors, `rope_freqs.weight`. Experts are one stacked tensor for each of gate, up and down,
 * or, in older files, a tensor for each expert.
 */
import { VramError } from '@vramkit/core';
import {
  denseToF32,
  readTensorRows,
  type GgmlType,
  type GgufFile,
  type TensorRange,
} from '@vramkit/packer';
import { checkConfig, type ModelConfig, type RopeScaling } from './model-config.js';
import type { StoredTensor, TensorLookup } from './model-tensors.js';

const ROPE_FACTORS = 'rope_freqs.weight';

/** Settings of related architectures that change the computation; none is computed here. */
const UNSUPPORTED_KEYS = [
  'attention.sliding_window',
  'attention.scale',
  'embedding_scale',
  'residual_scale',
  'logit_scale',
  'attention.clamp_kqv',
  'expert_shared_count',
];

/** Texts of control tokens that end a turn or a text, whichever of them the metadata names. */
const STOP_TEXTS = new Set([
  '<|endoftext|>',
  '<|end_of_text|>',
  '<|im_end|>',
  '<|eot_id|>',
  '<|eom_id|>',
  '<|end|>',
]);
const CONTROL_TOKEN = 3;

/**
 * Reads the configuration of `file`.
 * @throws VramError `unsupported` for another architecture or setting, `not-found` for missing
 * metadata, `corrupt-data` for impossible numbers.
 */
export async function ggufConfig(file: GgufFile, signal?: AbortSignal): Promise<ModelConfig> {
  const { metadata, tensors } = file;
  const path = file.source.name;
  checkArchitecture(file);
  const integer = (key: string): number | undefined => metadata.integer(`llama.${key}`);
  const required = (key: string): number => integer(key) ?? missing(path, `llama.${key}`);
  const hiddenSize = required('embedding_length');
  const heads = required('attention.head_count');
  const headDim = integer('attention.key_length') ?? hiddenSize / heads;
  sameAs(path, 'llama.attention.value_length', integer('attention.value_length'), headDim);
  sameAs(path, 'llama.rope.dimension_count', integer('rope.dimension_count'), headDim);
  const experts = integer('expert_count') ?? 0;
  const eosId = metadata.integer('tokenizer.ggml.eos_token_id');
  return checkConfig(path, {
    architecture: experts === 0 ? 'llama' : 'mixtral',
    hiddenSize,
    layers: required('block_count'),
    heads,
    kvHeads: integer('attention.head_count_kv') ?? heads,
    headDim,
    intermediateSize: required('feed_forward_length'),
    vocabularySize:
      tensors.get('token_embd.weight')?.shape[0] ?? missing(path, 'token_embd.weight'),
    contextLength: required('context_length'),
    ropeTheta: metadata.number('llama.rope.freq_base') ?? 10_000,
    ropeScaling: await readScaling(file, headDim, signal),
    ropeStyle: 'interleaved',
    rmsNormEpsilon:
      metadata.number('llama.attention.layer_norm_rms_epsilon') ??
      missing(path, 'llama.attention.layer_norm_rms_epsilon'),
    tiedEmbeddings: !tensors.has('output.weight'),
    experts,
    expertsPerToken: experts === 0 ? 0 : required('expert_used_count'),
    bosId: metadata.integer('tokenizer.ggml.bos_token_id'),
    eosId,
    stopIds: stopIds(file, eosId),
  });
}

function missing(file: string, key: string): never {
  throw new VramError('not-found', `${file}: '${key}' is missing`, { context: { file, key } });
}

function sameAs(file: string, key: string, value: number | undefined, expected: number): void {
  if (value === undefined || value === expected) return;
  throw new VramError('unsupported', `${file}: ${key} is ${value}, head size is ${expected}`, {
    context: { file, key, value, expected },
  });
}

function checkArchitecture({ metadata, source }: GgufFile): void {
  const refuse = (key: string, value: string | number): never => {
    throw new VramError('unsupported', `${source.name}: ${key} '${value}' is not computed here`, {
      context: { file: source.name, key, value },
    });
  };
  const architecture =
    metadata.string('general.architecture') ?? missing(source.name, 'general.architecture');
  if (architecture !== 'llama') refuse('architecture', architecture);
  const parts = metadata.integer('split.count') ?? 1;
  if (parts > 1) refuse('split.count', parts);
  for (const key of UNSUPPORTED_KEYS) {
    const value = metadata.entries.get(`llama.${key}`);
    if (value !== undefined && value !== 0) refuse(`llama.${key}`, String(value));
  }
}

async function readScaling(
  file: GgufFile,
  headDim: number,
  signal: AbortSignal | undefined,
): Promise<RopeScaling> {
  const { metadata, tensors, source } = file;
  const type = metadata.string('llama.rope.scaling.type') ?? 'none';
  const factor =
    metadata.number('llama.rope.scaling.factor') ?? metadata.number('llama.rope.scale_linear');
  const factors = tensors.get(ROPE_FACTORS);
  if (type !== 'none' && type !== 'linear') {
    throw new VramError('unsupported', `${source.name}: RoPE scaling '${type}'`, {
      context: { file: source.name, scaling: type },
    });
  }
  if (factors !== undefined) {
    if (factors.type !== 'F32' || factors.shape.length !== 1 || factors.shape[0] !== headDim / 2) {
      const found = `${factors.type} [${factors.shape.join(', ')}]`;
      throw new VramError('corrupt-data', `${source.name}: '${ROPE_FACTORS}' is ${found}`, {
        context: { file: source.name, tensor: ROPE_FACTORS, expected: headDim / 2 },
      });
    }
    const bytes = await readTensorRows(source, factors, 0, 1, signal);
    return { type: 'factors', factors: [...denseToF32('F32', bytes)] };
  }
  return factor === undefined || factor === 1 || factor === 0
    ? { type: 'none' }
    : { type: 'linear', factor };
}

function stopIds({ metadata }: GgufFile, eosId: number | undefined): number[] {
  const ids = new Set(eosId === undefined ? [] : [eosId]);
  for (const key of ['eot_token_id', 'eom_token_id']) {
    const id = metadata.integer(`tokenizer.ggml.${key}`);
    if (id !== undefined) ids.add(id);
  }
  const types = metadata.numbers('tokenizer.ggml.token_type');
  metadata.strings('tokenizer.ggml.tokens')?.forEach((text, id) => {
    if (types?.[id] === CONTROL_TOKEN && STOP_TEXTS.has(text)) ids.add(id);
  });
  return [...ids];
}

const NAMES: Readonly<Record<string, string>> = {
  embedding: 'token_embd.weight',
  finalNorm: 'output_norm.weight',
  head: 'output.weight',
  attentionNorm: 'attn_norm.weight',
  query: 'attn_q.weight',
  key: 'attn_k.weight',
  value: 'attn_v.weight',
  attentionOutput: 'attn_output.weight',
  feedForwardNorm: 'ffn_norm.weight',
  gate: 'ffn_gate.weight',
  up: 'ffn_up.weight',
  down: 'ffn_down.weight',
  router: 'ffn_gate_inp.weight',
};

/** Finds our tensors in `file`. */
export function ggufLookup(file: GgufFile): TensorLookup {
  const { source, tensors } = file;
  return {
    file: source.name,
    storedNames: tensors.keys(),
    isIgnored: (storedName) => storedName === ROPE_FACTORS,
    find: (name, shape) => {
      const [, layer, part = name] = /^layers\.(\d+)\.(.+)$/.exec(name) ?? [];
      const prefix = layer === undefined ? '' : `blk.${layer}.`;
      const [, expert, role] = /^experts\.(\d+)\.(gate|up|down)$/.exec(part) ?? [];
      if (expert === undefined) {
        const storedName = `${prefix}${NAMES[part] ?? part}`;
        const tensor = tensors.get(storedName);
        return tensor === undefined ? storedName : stored(file, tensor, 0, tensor.rows);
      }
      const single = tensors.get(`${prefix}ffn_${role}.${expert}.weight`);
      if (single !== undefined) return stored(file, single, 0, single.rows);
      const stackedName = `${prefix}ffn_${role}_exps.weight`;
      const stacked = tensors.get(stackedName);
      if (stacked === undefined) return stackedName;
      return expertOf(file, stacked, Number(expert), shape);
    },
  };
}

/** The rows of one expert of a stacked tensor [experts, rows, columns]. */
function expertOf(
  file: GgufFile,
  stacked: TensorRange<GgmlType>,
  expert: number,
  shape: readonly [number, number],
): StoredTensor {
  const [count = 0, rows = 0] = stacked.shape;
  if (stacked.shape.length !== 3 || rows !== shape[0] || expert >= count) {
    const found = `tensor '${stacked.name}' [${stacked.shape.join(', ')}]`;
    const wanted = `expert ${expert} of ${shape.join(' x ')}`;
    throw new VramError('corrupt-data', `${file.source.name}: ${found} has no ${wanted}`, {
      context: { file: file.source.name, tensor: stacked.name, shape: stacked.shape, expert },
    });
  }
  return stored(file, stacked, expert * rows, rows);
}

function stored(
  { source }: GgufFile,
  tensor: TensorRange<GgmlType>,
  firstRow: number,
  rows: number,
): StoredTensor {
  const columns = tensor.shape[tensor.shape.length - 1] ?? 1;
  return {
    source,
    storedName: tensor.name,
    type: tensor.type,
    rows,
    columns,
    rowBytes: tensor.rowBytes,
    read: (rowStart, rowCount, signal) => {
      const slice = { ...tensor, offset: tensor.offset + firstRow * tensor.rowBytes, rows };
      return readTensorRows(source, slice, rowStart, rowCount, signal);
    },
  };
}
