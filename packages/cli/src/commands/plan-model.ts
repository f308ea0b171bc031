/**
 * A model file as a placement planner sees it: bytes of layers, experts and the rest, by the names
 * of tensors, and bytes of K and V from the shapes of their projections.
 *
 * Bytes are those of the file. A device may pad rows or keep scales wider, by a few percent.
 */
import { fail } from '@vramkit/core';
import type { InferenceModel } from '@vramkit/offload';
import type { ModelSource } from './model-source.js';

interface Sized {
  readonly name: string;
  readonly shape: readonly number[];
  readonly sizeBytes: number;
}

const LAYER = /(?:^|\.)(?:blk|layers|h)\.(\d+)\./;
const EXPERT = /(?:experts\.(\d+)\.|_exps\.weight\.(\d+)$|ffn_\w+\.(\d+)\.weight$)/;
const KEY_OR_VALUE = /(?:k_proj|v_proj|attn_k|attn_v)\.weight$/;
const EMBEDDING = /(?:embed_tokens|token_embd)\.weight$/;

function sizedTensors(source: ModelSource): Sized[] {
  if (source.packed === undefined) return [...source.tensors];
  return [...source.packed.tensors.values()].map(({ name, shape, sections }) => ({
    name,
    shape,
    sizeBytes: sections.reduce((sum, { begin, end }) => sum + end - begin, 0),
  }));
}

/** Options of {@link inferenceModel}. */
export interface InferenceModelOptions {
  /** Bytes of an element of K and V. */
  readonly kvBytes: number;
  /** Experts that a token reads; goes before what files say. */
  readonly expertsPerToken: number | undefined;
  /** The same, as the model's files have it. */
  readonly statedExperts: number | undefined;
}

/**
 * Counts the bytes of a model. Layers are taken to be alike: the largest one counts for all.
 * @throws VramError `unsupported` where names show no layers or no key projection;
 * `invalid-argument` where the file does not say how many experts a token reads and nobody else
 * does, and where they are given for a model that has none.
 */
export function inferenceModel(
  source: ModelSource,
  options: InferenceModelOptions,
): InferenceModel {
  const layers = new Map<number, { dense: number; experts: Map<number, number> }>();
  let frameBytes = 0;
  let kvRows = 0;
  let denseParameters = 0;
  let expertParameters = 0;
  for (const { name, shape, sizeBytes } of sizedTensors(source)) {
    const parameters = shape.reduce((product, extent) => product * extent, 1);
    const index = LAYER.exec(name)?.[1];
    if (index === undefined) {
      frameBytes += sizeBytes;
      // A lookup, not a product; a tied head is counted as one.
      if (!EMBEDDING.test(name) || !hasHead(source)) denseParameters += parameters;
      continue;
    }
    const layer = layers.get(Number(index)) ?? { dense: 0, experts: new Map<number, number>() };
    layers.set(Number(index), layer);
    const expert = EXPERT.exec(name)?.slice(1).find(Boolean);
    if (expert === undefined) {
      layer.dense += sizeBytes;
      denseParameters += parameters;
      if (KEY_OR_VALUE.test(name)) kvRows += shape[0] ?? 0;
    } else {
      layer.experts.set(Number(expert), (layer.experts.get(Number(expert)) ?? 0) + sizeBytes);
      expertParameters += parameters;
    }
  }
  if (layers.size === 0 || kvRows === 0) {
    fail('unsupported', 'the names of its tensors show no layers of attention in this model');
  }
  const all = [...layers.values()];
  const experts = Math.max(...all.map((layer) => layer.experts.size));
  if (experts === 0 && options.expertsPerToken !== undefined) {
    fail('invalid-argument', '--experts-per-token: this model has no experts');
  }
  const expertsPerToken = options.expertsPerToken ?? options.statedExperts ?? 0;
  if (experts > 0 && expertsPerToken === 0) {
    const what = 'the file does not say how many experts a token reads';
    fail('invalid-argument', `${what}; give --experts-per-token`, { experts });
  }
  const share = experts === 0 ? 0 : expertsPerToken / experts;
  return {
    layers: layers.size,
    frameBytes,
    layerBytes: Math.max(...all.map(({ dense }) => dense)),
    experts,
    expertsPerToken: experts === 0 ? 0 : expertsPerToken,
    expertBytes: Math.max(0, ...all.flatMap((layer) => [...layer.experts.values()])),
    kvBytesPerToken: kvRows * options.kvBytes,
    activeParameters: Math.round(denseParameters + share * expertParameters),
  };
}

function hasHead(source: ModelSource): boolean {
  return sizedTensors(source).some(({ name }) => /^(?:lm_head|output)\.weight$/.test(name));
}
