/** A dense Llama model of seeded weights, of any number of layers, as a GGUF file. */
import { seededRandom } from '@vramkit/core/testing';
import type { BuildGgufTensor } from '@vramkit/packer/testing';
import { CONFIG, METADATA, writeFolder, writeGguf } from './small-model.js';

const HIDDEN = 128;
const INTERMEDIATE = 384;
const VOCABULARY = 256;

function seededTensors(layers: number, seed: number): BuildGgufTensor[] {
  const random = seededRandom(seed);
  const tensors: BuildGgufTensor[] = [];
  const add = (name: string, shape: readonly number[], scale: number, shift = 0): void => {
    const count = shape.reduce((product, extent) => product * extent, 1);
    const values = random.float32Array(count).map((value) => shift + scale * value);
    tensors.push({ name, type: 'F32', shape, bytes: new Uint8Array(values.buffer) });
  };
  add('token_embd.weight', [VOCABULARY, HIDDEN], 1);
  add('output_norm.weight', [HIDDEN], 0.1, 1);
  for (let layer = 0; layer < layers; layer++) {
    const name = (part: string): string => `blk.${layer}.${part}.weight`;
    add(name('attn_norm'), [HIDDEN], 0.1, 1);
    add(name('attn_q'), [192, HIDDEN], 0.15);
    add(name('attn_k'), [64, HIDDEN], 0.15);
    add(name('attn_v'), [64, HIDDEN], 0.15);
    add(name('attn_output'), [HIDDEN, 192], 0.15);
    add(name('ffn_norm'), [HIDDEN], 0.1, 1);
    add(name('ffn_gate'), [INTERMEDIATE, HIDDEN], 0.15);
    add(name('ffn_up'), [INTERMEDIATE, HIDDEN], 0.15);
    add(name('ffn_down'), [HIDDEN, INTERMEDIATE], 0.15);
  }
  return tensors;
}

/** Writes the model into `folder`: SmolLM2's shape, three query heads to a key head, small. */
export function writeSeededDense(folder: string, layers: number, seed: number): Promise<string> {
  const metadata = {
    ...METADATA,
    'llama.block_count': layers,
    'llama.context_length': 512,
    'llama.embedding_length': HIDDEN,
    'llama.feed_forward_length': INTERMEDIATE,
    'llama.attention.head_count': 6,
    'llama.attention.head_count_kv': 2,
    'llama.attention.key_length': 32,
    'llama.attention.value_length': 32,
  };
  return writeGguf(folder, metadata, seededTensors(layers, seed));
}

/** The same weights as a folder of the hub, with `config.json`. */
export function writeSeededFolder(folder: string, layers: number, seed: number): Promise<string> {
  const config = {
    ...CONFIG,
    hidden_size: HIDDEN,
    intermediate_size: INTERMEDIATE,
    num_hidden_layers: layers,
    num_attention_heads: 6,
    num_key_value_heads: 2,
    head_dim: 32,
    vocab_size: VOCABULARY,
    max_position_embeddings: 512,
  };
  return writeFolder(folder, config, seededTensors(layers, seed));
}
