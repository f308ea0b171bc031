/**
 * What the experts of tiny-moe lose: our quantizers that need no data beside the types of
 * llama.cpp, stored by ggml itself, on the same tensors with everything counted in the bits. Goals:
 * at 4 bits the best of ours has no larger error than Q4_K, and hqq and optRtn have a smaller one
 * than Q4_0.
 *
 * Each way's values, as stored, replace the experts of the model; its perplexity is that of text
 * the weights were not trained on. Rows of tiny-moe are shorter than the 256 weights of a k-quant
 * block, so ggml gets two rows as one; blocks are filled in the same order. A row's name says its
 * bits a weight; ours in groups of 64 have those of Q4_0 and Q4_K, in groups of 32 half a bit more.
 */
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createGpu } from '@vramkit/adapter';
import { openDevice } from '@vramkit/core';
import { meanLoss, openMoeModel } from '@vramkit/example-moe-pack';
import {
  bitsPerWeight,
  compareWeights,
  hqq,
  matrixValues,
  optRtn,
  quantizeMatrix,
  rtn,
  sourceValues,
  type CodeBits,
  type GroupChoice,
  type Quantizer,
} from '@vramkit/packer';
import { buildSafetensors } from '@vramkit/packer/testing';
import type { BenchOptions } from './command-line.js';
import type { Measured, Summary } from './measure.js';
import { installPeers, workspaceFolder } from './peers.js';
import { ProductPeer } from './product-peer.js';
import { toResult, type BenchResult } from './report.js';

/** What it answers. */
export const question = "What do our quantizers lose beside llama.cpp's types, bit for bit?";

/** Values as a way of storing leaves them, and the bits that each takes. */
interface Stored {
  readonly values: Float32Array;
  readonly bits: number;
}

interface Way {
  readonly name: string;
  readonly store: (values: Float32Array, rows: number, columns: number) => Promise<Stored>;
}

function ours(quantizer: Quantizer, bits: CodeBits, groupSize: GroupChoice): Way {
  return {
    name: `${quantizer.name} ${groupSize}`,
    store: async (values, rows, columns) => {
      const options = { name: 'expert', rows, columns, bits, groupSize, quantizer };
      const matrix = quantizeMatrix(values, options);
      return { values: matrixValues(matrix), bits: bitsPerWeight(matrix.layout) };
    },
  };
}

/** Weights of a k-quant block. */
const blockWeights = 256;

function ggml(peer: ProductPeer, type: string, folder: string): Way {
  return {
    name: `ggml ${type}`,
    store: async (values) => {
      const input = join(folder, 'weights.f32');
      const output = join(folder, 'stored.f32');
      const rows = values.length / blockWeights;
      await writeFile(input, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      const request = { type, rows, columns: blockWeights, input, output };
      const { sizeBytes } = await peer.ask('quantize', request);
      const stored = Uint8Array.from(await readFile(output));
      return { values: new Float32Array(stored.buffer), bits: (8 * sizeBytes) / values.length };
    },
  };
}

/** What a way costs. */
interface Cost {
  readonly name: string;
  readonly mse: number;
  readonly perplexity: number;
}

const once = (value: number): Summary => ({ median: value, min: value, max: value, runs: 1 });

function toResults(name: string, costs: readonly Cost[], driver: string): BenchResult[] {
  const [subject, ...rest] = costs;
  if (subject === undefined) return [];
  return (['mse', 'perplexity'] as const).map((metric) => {
    const measured: Measured = {
      ours: once(subject[metric]),
      peers: Object.fromEntries(rest.map((cost) => [cost.name, once(cost[metric])])),
      failures: {},
    };
    const unit = metric === 'mse' ? 'squared weight' : 'per byte';
    const figure = { suite: 'packed-quality', case: `${name}, ${subject.name}`, metric, unit };
    return toResult({ ...figure, driver, better: 'lower' }, measured);
  });
}

function waysOf(peer: ProductPeer, folder: string): Readonly<Record<string, readonly Way[]>> {
  const all = (bits: CodeBits, groupSize: GroupChoice): Way[] =>
    [optRtn(), hqq(), rtn(), optRtn({ convention: 'symmetric' })].map((quantizer) =>
      ours(quantizer, bits, groupSize),
    );
  const types = (...names: readonly string[]): Way[] =>
    names.map((type) => ggml(peer, type, folder));
  return {
    '4 bits': [...all(4, 64), ...all(4, 32), ...types('q4_0', 'q4_1', 'q4_K')],
    '3 bits': [...all(3, 64), ...all(3, 32), ...types('q3_K')],
    '2 bits': [...all(2, 64), ...all(2, 32), ...types('q2_K')],
  };
}

/** Measures everything. */
export async function run({ quick, log }: BenchOptions): Promise<readonly BenchResult[]> {
  await installPeers(log);
  const { gpu, adapter } = await createGpu();
  using device = await openDevice({ gpu });
  const source = join(workspaceFolder, 'tools/models/tiny-moe');
  const work = await mkdtemp(join(tmpdir(), 'vramkit-quality-'));
  const model = await openMoeModel(source);
  const peer = new ProductPeer('ggml');
  try {
    const tensors: { name: string; shape: readonly number[]; values: Float32Array }[] = [];
    for (const tensor of model.tensors) {
      const { name, shape } = tensor;
      tensors.push({ name, shape, values: await sourceValues(tensor) });
    }
    const text = await readFile(join(source, 'eval.txt'));
    const starts = quick ? [1000] : [1000, 18_000, 35_000, 44_000];
    const windows = starts.map((start) => Uint32Array.from(text.subarray(start, start + 513)));
    const plain = Math.exp(await meanLoss(device, source, windows));
    log(`as stored: perplexity ${plain.toFixed(4)}`);
    const folder = join(work, 'model');
    await mkdir(folder);
    await copyFile(join(source, 'config.json'), join(folder, 'config.json'));
    const cost = async (way: Way): Promise<Cost> => {
      let [noise, weights, bits] = [0, 0, 0];
      const stored = [];
      for (const { name, shape, values } of tensors) {
        let kept = values;
        if (model.unitOf.has(name)) {
          const [rows = 0, columns = 0] = shape;
          const result = await way.store(values, rows, columns);
          kept = result.values;
          noise += values.length * compareWeights(kept, values, { columns }).mse;
          weights += values.length;
          bits += values.length * result.bits;
        }
        stored.push({ name, type: 'F32', shape, bytes: new Uint8Array(kept.slice().buffer) });
      }
      await writeFile(join(folder, 'model.safetensors'), buildSafetensors(stored));
      const perplexity = Math.exp(await meanLoss(device, folder, windows));
      const name = `${way.name} (${(bits / weights).toFixed(3)} bits)`;
      log(`${name}: MSE ${(noise / weights).toExponential(3)}, ${perplexity.toFixed(4)}`);
      return { name, mse: noise / weights, perplexity };
    };
    const results: BenchResult[] = [];
    for (const [name, ways] of Object.entries(waysOf(peer, work))) {
      const costs: Cost[] = [];
      for (const way of ways) costs.push(await cost(way));
      results.push(...toResults(name, costs, adapter));
    }
    return results;
  } finally {
    await peer.dispose();
    await model.close();
    await rm(work, { recursive: true });
  }
}
