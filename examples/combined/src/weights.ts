/**
 * Parameters between two spellings: the optimizer's flat array, whose matrices are [in, out], and
 * the tensors of a Mixtral checkpoint, which are [out, in] and in bf16.
 */
import { fail, f32ToBf16 } from '@vramkit/core';
import {
  MODEL_SHAPES,
  parameterCount,
  parameterSpecs,
  type ParameterSpec,
} from '@vramkit/example-train';
import { sourceValues, type SourceTensor } from '@vramkit/packer';
import type { CheckpointTensor } from '@vramkit/storage';

/** The shape that is trained. */
export const SHAPE = MODEL_SHAPES['tiny-moe'];
const SPECS = parameterSpecs(SHAPE);

/** Parameters of the model. */
export const PARAMETER_COUNT = parameterCount(SPECS);

const PARTS: Readonly<Record<string, string>> = {
  attentionNorm: 'input_layernorm',
  q: 'self_attn.q_proj',
  k: 'self_attn.k_proj',
  v: 'self_attn.v_proj',
  o: 'self_attn.o_proj',
  mlpNorm: 'post_attention_layernorm',
  router: 'block_sparse_moe.gate',
  gate: 'w1',
  up: 'w3',
  down: 'w2',
};

/** The name of a parameter in a Mixtral checkpoint. */
function storedName(name: string): string {
  if (name === 'embedding') return 'model.embed_tokens.weight';
  if (name === 'finalNorm') return 'model.norm.weight';
  const [layer, second = '', third] = name.split('.');
  const place = third === undefined ? '' : `block_sparse_moe.experts.${second}.`;
  return `model.layers.${layer}.${place}${PARTS[third ?? second]}.weight`;
}

/** Whether a parameter lies the other way round in a checkpoint: every matrix that multiplies. */
function isTurned({ name, shape }: ParameterSpec): boolean {
  return shape.length === 2 && name !== 'embedding';
}

/** [rows, columns] to [columns, rows]. */
function turned(values: Float32Array, rows: number, columns: number): Float32Array {
  const result = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      result[column * rows + row] = values[row * columns + column] ?? 0;
    }
  }
  return result;
}

/**
 * The flat array of a model in a file.
 * @throws VramError `not-found` naming a tensor that the file lacks; `corrupt-data` for its size.
 */
export async function flatParameters(tensors: readonly SourceTensor[]): Promise<Float32Array> {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const all = new Float32Array(PARAMETER_COUNT);
  let start = 0;
  for (const spec of SPECS) {
    const name = storedName(spec.name);
    const tensor = byName.get(name) ?? fail('not-found', `the model has no tensor '${name}'`);
    const [rows = 1, columns = 1] = spec.shape;
    const values = await sourceValues(tensor);
    if (values.length !== rows * columns) {
      fail('corrupt-data', `'${name}' has ${values.length} values, not ${rows * columns}`);
    }
    all.set(isTurned(spec) ? turned(values, columns, rows) : values, start);
    start += values.length;
  }
  return all;
}

/** The tensors of a checkpoint, rounded to bf16. */
export function checkpointTensors(parameters: Float32Array): CheckpointTensor[] {
  let start = 0;
  return SPECS.map((spec) => {
    const [rows = 1, columns = 1] = spec.shape;
    const own = parameters.subarray(start, start + rows * columns);
    start += own.length;
    const isMatrix = isTurned(spec);
    const values = isMatrix ? turned(own, rows, columns) : own;
    const bytes = new Uint8Array(Uint16Array.from(values, f32ToBf16).buffer);
    const shape = isMatrix ? [columns, rows] : spec.shape;
    return { name: storedName(spec.name), dtype: 'BF16', shape, bytes };
  });
}
