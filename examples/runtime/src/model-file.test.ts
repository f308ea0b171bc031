// Small models in both formats open with the same configuration, shapes and bytes; what is
// missing, wrong or not computed here is refused by name; damaged files give VramErrors only.
import { isVramError } from '@vramkit/core';
import { denseToF32 } from '@vramkit/packer';
import { buildGguf, buildSafetensors, type BuildGgufValue } from '@vramkit/packer/testing';
import fc from 'fast-check';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { openModelFile, type ModelFile } from './model-file.js';
import {
  CONFIG,
  countingTensor,
  EXPERT_METADATA,
  ggufTensors,
  METADATA,
  writeFolder,
  writeGguf,
} from './testing/small-model.js';
import { loadTokenizer } from './tokenizer.js';

const root = await mkdtemp(join(tmpdir(), 'vramkit-model-file-'));
afterAll(() => rm(root, { recursive: true }));
let folder = '';
beforeEach(async () => {
  folder = await mkdtemp(join(root, 'm-'));
});

/** Every value of every tensor, by our names. */
async function contents(file: ModelFile): Promise<Record<string, number[]>> {
  const values: Record<string, number[]> = {};
  for (const [name, { rows, read, type }] of file.tensors) {
    expect(type).toBe('F32');
    values[name] = [...denseToF32('F32', await read(0, rows))];
  }
  return values;
}

describe('openModelFile', () => {
  it('gives the same model for GGUF, one safetensors file and shards', async () => {
    const tensors = ggufTensors('none');
    const gguf = await openModelFile(await writeGguf(folder, METADATA, tensors));
    const expected = await contents(gguf);
    expect(expected['layers.1.down']?.slice(0, 2)).toEqual([21_000, 21_001]);
    expect(gguf.config).toMatchObject({
      architecture: 'llama',
      heads: 4,
      kvHeads: 2,
      headDim: 8,
      vocabularySize: 8,
      ropeTheta: 50_000.5,
      ropeScaling: { type: 'none' },
      ropeStyle: 'interleaved',
      tiedEmbeddings: true,
      experts: 0,
    });
    expect(gguf.tensorBytes).toBe(tensors.reduce((sum, each) => sum + each.bytes.length, 0));
    const single = await openModelFile(await writeFolder(folder, CONFIG, tensors));
    expect(single.config).toEqual({ ...gguf.config, ropeStyle: 'half' });
    expect(await contents(single)).toEqual(expected);
    const byName = await openModelFile(join(folder, 'model.safetensors'));
    expect(byName.config).toEqual(single.config);
    const shards = await openModelFile(await writeFolder(folder, CONFIG, tensors, 3));
    expect(await contents(shards)).toEqual(expected);
    for (const file of [gguf, single, byName, shards]) await file.close();
  });

  it('gives the same experts stacked, single and from the hub', async () => {
    const single = await openModelFile(
      await writeGguf(folder, EXPERT_METADATA, ggufTensors('single')),
    );
    expect(single.config).toMatchObject({
      architecture: 'mixtral',
      experts: 3,
      expertsPerToken: 2,
    });
    const values = await contents(single);
    const config = { ...CONFIG, num_local_experts: 3, num_experts_per_tok: 2 };
    const mixtral = { ...config, model_type: 'mixtral' };
    const hub = await openModelFile(await writeFolder(folder, mixtral, ggufTensors('single')));
    expect(await contents(hub)).toEqual(values);
    const stacked = await openModelFile(
      await writeGguf(folder, EXPERT_METADATA, ggufTensors('stacked')),
    );
    const all = await contents(stacked);
    expect(Object.keys(all)).toEqual(Object.keys(values));
    const first = all['layers.0.experts.0.up']?.[0] ?? NaN;
    expect(all['layers.0.experts.2.up']?.[0]).toBe(first + 2 * 64 * 32);
    const up = stacked.tensor('layers.0.experts.2.up');
    const row = denseToF32('F32', await up.read(63, 1));
    expect(row[0]).toBe(first + (2 * 64 + 63) * 32);
    await expect((async () => up.read(63, 2))()).rejects.toThrow(/outside of 64 rows/);
    for (const file of [single, hub, stacked]) await file.close();
  });

  it('reads the scaling of rotary embeddings in every spelling', async () => {
    const tensors = ggufTensors('none');
    const scaling = async (metadata: Readonly<Record<string, BuildGgufValue>>, extra = tensors) => {
      const file = await openModelFile(
        await writeGguf(folder, { ...METADATA, ...metadata }, extra),
      );
      await file.close();
      return file.config.ropeScaling;
    };
    const linear = { 'llama.rope.scaling.type': 'linear', 'llama.rope.scaling.factor': 2.5 };
    expect(await scaling(linear)).toEqual({ type: 'linear', factor: 2.5 });
    const factors = countingTensor('rope_freqs.weight', [4], 1);
    expect(await scaling({}, [...tensors, factors])).toEqual({
      type: 'factors',
      factors: [1000, 1001, 1002, 1003],
    });
    const llama3 = {
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    };
    const expected = {
      type: 'llama3',
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalContext: 64,
    };
    const newer = { ...CONFIG, rope_theta: null, rope_parameters: { ...llama3, rope_theta: 7 } };
    for (const config of [{ ...CONFIG, rope_scaling: llama3 }, newer]) {
      const file = await openModelFile(await writeFolder(folder, config, tensors));
      expect(file.config.ropeScaling).toEqual(expected);
      await file.close();
    }
    const theta = await openModelFile(await writeFolder(folder, newer, tensors));
    expect(theta.config.ropeTheta).toBe(7);
    await theta.close();
  });

  it('collects the tokens that end a generation', async () => {
    const metadata = {
      ...METADATA,
      'tokenizer.ggml.tokens': [
        '<|endoftext|>',
        'b',
        '<|im_end|>',
        'd',
        'e',
        'f',
        'g',
        '<|eot_id|>',
      ],
      'tokenizer.ggml.token_type': Int32Array.of(3, 1, 3, 1, 1, 1, 1, 1),
      'tokenizer.ggml.eos_token_id': 2,
      'tokenizer.ggml.eot_token_id': 5,
    };
    const file = await openModelFile(await writeGguf(folder, metadata, ggufTensors('none')));
    expect(file.config).toMatchObject({ eosId: 2, bosId: undefined });
    // Token 7 has the text of a stop token and is not a control token.
    expect([...file.config.stopIds].sort()).toEqual([0, 2, 5]);
    await file.close();
    await writeFile(join(folder, 'generation_config.json'), '{"eos_token_id":[7,3]}');
    const hub = await openModelFile(
      await writeFolder(
        folder,
        { ...CONFIG, eos_token_id: 3, bos_token_id: 1 },
        ggufTensors('none'),
      ),
    );
    expect(hub.config).toMatchObject({ bosId: 1, eosId: 3, stopIds: [3, 7] });
    await hub.close();
  });
});

async function refusal(path: string): Promise<string> {
  const error: unknown = await openModelFile(path).then(
    (file) => file.close(),
    (e: unknown) => e,
  );
  if (!isVramError(error)) throw new Error(`accepted or threw ${String(error)}`);
  return error.message;
}

describe('openModelFile refuses', () => {
  const wrongMetadata: readonly [string, Record<string, BuildGgufValue>, RegExp][] = [
    ['another architecture', { 'general.architecture': 'qwen2' }, /^unsupported.*'qwen2'/],
    ['a part of a split file', { 'split.count': 3 }, /^unsupported.*split\.count '3'/],
    ['a sliding window', { 'llama.attention.sliding_window': 64 }, /^unsupported.*sliding_window/],
    ['another scaling', { 'llama.rope.scaling.type': 'yarn' }, /^unsupported.*'yarn'/],
    [
      'a partial rotation',
      { 'llama.rope.dimension_count': 4 },
      /dimension_count is 4, head size is 8/,
    ],
    [
      'heads that do not divide',
      { 'llama.attention.head_count_kv': 3 },
      /heads is 4; it must be a mul/,
    ],
    ['an odd head', { 'llama.attention.head_count': 32 }, /headDim is 1; it must be even/],
    ['a huge layer count', { 'llama.block_count': 2 ** 31 }, /layers is 2147483648/],
    [
      'layers that are not there',
      { 'llama.block_count': 4096 },
      /^not-found.*'blk\.2\.attn_norm\.weight'/,
    ],
    [
      'a wrong width',
      { 'llama.feed_forward_length': 32 },
      /'blk\.0\.ffn_gate\.weight' is 64 x 32, not 32 x 32/,
    ],
    [
      'a token outside',
      { 'tokenizer.ggml.eos_token_id': 8 },
      /token id is 8; it must be in \[0, 8\)/,
    ],
    [
      'a text for a number',
      { 'llama.context_length': 'long' },
      /'llama\.context_length' must be an integer/,
    ],
  ];
  it.each(wrongMetadata)('%s', async (_, change, message) => {
    const path = await writeGguf(folder, { ...METADATA, ...change }, ggufTensors('none'));
    expect(await refusal(path)).toMatch(message);
  });

  it('missing metadata and tensors, left-over ones, and wrong experts', async () => {
    const tensors = ggufTensors('none');
    const { 'llama.block_count': _, ...fewer } = METADATA;
    expect(await refusal(await writeGguf(folder, fewer, tensors))).toMatch(
      /'llama\.block_count' is missing/,
    );
    const without = tensors.filter(({ name }) => name !== 'blk.1.attn_v.weight');
    expect(await refusal(await writeGguf(folder, METADATA, without))).toMatch(
      /not-found: .*m\.gguf: there is no tensor 'blk\.1\.attn_v\.weight' \(layers\.1\.value\)/,
    );
    const bias = countingTensor('blk.0.attn_q.bias', [32], 1);
    expect(await refusal(await writeGguf(folder, METADATA, [...tensors, bias]))).toMatch(
      /unsupported: .* 1 tensors are not part of .*'blk\.0\.attn_q\.bias'/,
    );
    const four = { ...EXPERT_METADATA, 'llama.expert_count': 4 };
    expect(await refusal(await writeGguf(folder, four, ggufTensors('stacked')))).toMatch(
      /'blk\.0\.ffn_gate_inp\.weight' is 3 x 32, not 4 x 32/,
    );
  });

  const wrongConfig: readonly [string, object, RegExp][] = [
    ['another model', { model_type: 'gpt2' }, /^unsupported.*model_type "gpt2"/],
    ['a bias', { attention_bias: true }, /attention_bias true/],
    ['a sliding window', { sliding_window: 64 }, /sliding_window 64/],
    ['quantized weights', { quantization_config: { bits: 4 } }, /quantization_config/],
    ['another activation', { hidden_act: 'gelu' }, /hidden_act "gelu"/],
    ['a missing field', { rms_norm_eps: null }, /^not-found.*'rms_norm_eps' is missing/],
    ['a text for a number', { hidden_size: '32' }, /^corrupt-data.*'hidden_size' must be a finite/],
    ['another scaling', { rope_scaling: { rope_type: 'yarn', factor: 2 } }, /RoPE scaling 'yarn'/],
    ['a head it lacks', { tie_word_embeddings: false }, /^not-found.*'lm_head\.weight' \(head\)/],
    ['more words than rows', { vocab_size: 9 }, /embed_tokens\.weight' is 8 x 32, not 9 x 32/],
  ];
  it.each(wrongConfig)('%s', async (_, change, message) => {
    const path = await writeFolder(folder, { ...CONFIG, ...change }, ggufTensors('none'));
    expect(await refusal(path)).toMatch(message);
  });

  it('folders without a model and files that are none', async () => {
    expect(await refusal(join(folder, 'none'))).toMatch(/not-found/);
    expect(await refusal(folder)).toMatch(/not-found: there is no model in folder .*config\.json/);
    await writeFile(join(folder, 'config.json'), '[1]');
    expect(await refusal(folder)).toMatch(/corrupt-data: .*config\.json: not a JSON object/);
    await writeFile(join(folder, 'config.json'), JSON.stringify(CONFIG));
    expect(await refusal(folder)).toMatch(/not-found: cannot open .*model\.safetensors/);
    await writeFile(join(folder, 'x.bin'), 'text that is no model at all');
    expect(await refusal(join(folder, 'x.bin'))).toMatch(/corrupt-data: .*not a GGUF file/);
  });

  it('integer weights, by tensor', async () => {
    await writeFile(join(folder, 'config.json'), JSON.stringify(CONFIG));
    const wrong = { name: 'model.embed_tokens.weight', type: 'I32', shape: [8, 32] };
    const bytes = buildSafetensors([{ ...wrong, bytes: new Uint8Array(1024) }]);
    await writeFile(join(folder, 'model.safetensors'), bytes);
    expect(await refusal(folder)).toMatch(/unsupported: .*'model\.embed_tokens\.weight' is I32/);
  });
});

describe('damaged models', () => {
  it('give VramErrors only, up to the tokenizer', async () => {
    const metadata = {
      ...EXPERT_METADATA,
      'tokenizer.ggml.model': 'gpt2',
      'tokenizer.ggml.pre': 'smollm',
      'tokenizer.ggml.tokens': ['a', 'b', 'ab', 'Ġ', '<|im_end|>', 'c', 'd', 'e'],
      'tokenizer.ggml.token_type': Int32Array.of(1, 1, 1, 1, 3, 1, 1, 1),
      'tokenizer.ggml.merges': ['a b'],
      'tokenizer.ggml.eos_token_id': 4,
      'tokenizer.chat_template': '{{ messages[0].content }}',
    };
    const valid = buildGguf({ metadata, tensors: ggufTensors('stacked') });
    const headerBytes = 3000;
    const path = join(folder, 'fuzz.gguf');
    const open = async (bytes: Uint8Array): Promise<boolean> => {
      await writeFile(path, bytes);
      try {
        const file = await openModelFile(path);
        try {
          (await loadTokenizer(file)).encode('ab c<|im_end|>');
        } finally {
          await file.close();
        }
        return true;
      } catch (error) {
        if (!isVramError(error)) throw error;
        return false;
      }
    };
    expect(await open(valid)).toBe(true);
    const change = fc.record({ at: fc.nat({ max: headerBytes }), value: fc.nat({ max: 255 }) });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (changes) => {
        const bytes = valid.slice();
        for (const { at, value } of changes) bytes[at] = value;
        await open(bytes);
      }),
      { seed: 99, numRuns: 600 },
    );
  });
});
