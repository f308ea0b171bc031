/**
 * A Llama model of two layers, dense or with three experts, small enough to write in a test: as
 * GGUF and as a folder of the hub, with values that count up, so that a wrong row or file shows.
 */
import {
  buildGguf,
  buildSafetensors,
  type BuildGgufTensor,
  type BuildGgufValue,
} from '@vramkit/packer/testing';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

const SHAPES: Readonly<Record<string, readonly number[]>> = {
  attn_norm: [32],
  attn_q: [32, 32],
  attn_k: [16, 32],
  attn_v: [16, 32],
  attn_output: [32, 32],
  ffn_norm: [32],
};
const DENSE = { ffn_gate: [64, 32], ffn_up: [64, 32], ffn_down: [32, 64] };

/** A tensor whose values count up from `seed`, so that a wrong row or file shows. */
export function countingTensor(
  name: string,
  shape: readonly number[],
  seed: number,
): BuildGgufTensor {
  const count = shape.reduce((product, extent) => product * extent, 1);
  const values = Float32Array.from({ length: count }, (_, i) => seed * 1000 + i);
  return { name, type: 'F32', shape, bytes: new Uint8Array(values.buffer) };
}

/** How the file holds experts. */
type Experts = 'none' | 'stacked' | 'single';

/** The tensors of a model of two layers. */
export function ggufTensors(experts: Experts): BuildGgufTensor[] {
  const tensors = [
    countingTensor('token_embd.weight', [8, 32], 1),
    countingTensor('output_norm.weight', [32], 2),
  ];
  for (let layer = 0; layer < 2; layer++) {
    const add = (name: string, shape: readonly number[]): void =>
      void tensors.push(countingTensor(`blk.${layer}.${name}.weight`, shape, tensors.length + 2));
    for (const [name, shape] of Object.entries(SHAPES)) add(name, shape);
    if (experts !== 'none') add('ffn_gate_inp', [3, 32]);
    for (const [name, shape] of Object.entries(DENSE)) {
      if (experts === 'none') add(name, shape);
      else if (experts === 'stacked') add(`${name}_exps`, [3, ...shape]);
      else for (let expert = 0; expert < 3; expert++) add(`${name}.${expert}`, shape);
    }
  }
  return tensors;
}

/** Metadata of the dense model. */
export const METADATA: Readonly<Record<string, BuildGgufValue>> = {
  'general.architecture': 'llama',
  'llama.block_count': 2,
  'llama.context_length': 128,
  'llama.embedding_length': 32,
  'llama.feed_forward_length': 64,
  'llama.attention.head_count': 4,
  'llama.attention.head_count_kv': 2,
  'llama.attention.layer_norm_rms_epsilon': 2 ** -17,
  'llama.rope.freq_base': 50_000.5,
};
/** Metadata of the model with three experts. */
export const EXPERT_METADATA = {
  ...METADATA,
  'llama.expert_count': 3,
  'llama.expert_used_count': 2,
};

/** `config.json` of the dense model. */
export const CONFIG = {
  model_type: 'llama',
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 8,
  max_position_embeddings: 128,
  rope_theta: 50_000.5,
  rms_norm_eps: 2 ** -17,
  tie_word_embeddings: true,
};

const HUB: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  ffn_norm: 'post_attention_layernorm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
  ffn_gate_inp: 'block_sparse_moe.gate',
};
const EXPERT_HUB: Readonly<Record<string, string>> = { gate: 'w1', up: 'w3', down: 'w2' };

/** The name on the hub of a tensor of the GGUF models above. */
function hubName(name: string): string {
  if (name === 'token_embd.weight') return 'model.embed_tokens.weight';
  if (name === 'output_norm.weight') return 'model.norm.weight';
  const [, layer, part = ''] = /^blk\.(\d+)\.(.+)\.weight$/.exec(name) ?? [];
  const [, role = '', expert] = /^ffn_(\w+)\.(\d+)$/.exec(part) ?? [];
  const local =
    expert === undefined ? HUB[part] : `block_sparse_moe.experts.${expert}.${EXPERT_HUB[role]}`;
  return `model.layers.${layer}.${local}.weight`;
}

/** Writes a GGUF file into `folder` and gives its path. */
export async function writeGguf(
  folder: string,
  metadata: Readonly<Record<string, BuildGgufValue>>,
  tensors: readonly BuildGgufTensor[],
): Promise<string> {
  const path = join(folder, 'm.gguf');
  await writeFile(path, buildGguf({ metadata, tensors }));
  return path;
}

/** Writes the tensors of a GGUF model as a folder of the hub, in `files` files. */
export async function writeFolder(
  folder: string,
  config: object,
  tensors: readonly BuildGgufTensor[],
  files = 1,
): Promise<string> {
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  const renamed = tensors.map((each) => ({ ...each, type: 'F32', name: hubName(each.name) }));
  if (files === 1) {
    await writeFile(join(folder, 'model.safetensors'), buildSafetensors(renamed));
    return folder;
  }
  const weightMap: Record<string, string> = {};
  for (let file = 0; file < files; file++) {
    const name = `model-${file}.safetensors`;
    const part = renamed.filter((_, i) => i % files === file);
    for (const each of part) weightMap[each.name] = name;
    await writeFile(join(folder, name), buildSafetensors(part));
  }
  const index = JSON.stringify({ metadata: {}, weight_map: weightMap });
  await writeFile(join(folder, 'model.safetensors.index.json'), index);
  return folder;
}
