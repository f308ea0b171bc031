/**
 * Attention of one query token per sequence over the K and V of its block table (flash-decoding).
 *
 * A workgroup serves one sequence, one partition of its tokens, and up to four query heads of one
 * KV head, so that each key and value is loaded once for all of them. It walks its partition in
 * tiles:
 *
 *   1. lanes over tokens: a lane owns the scores of its tokens (no lane waits for another)
 *   2. maximum of the tile, then exp(score - maximum) in place, sums kept per lane
 *   3. lanes over (token group, four output elements): weighted sum of values
 *
 * Shapes: queries f32 [sequences, heads, headDim] rows, `queryStride` elements apart; kv a layer's
 * segment; blockTables [sequences, tableStride]; lengths [sequences] cached slots; partials
 * [sequences * heads, partitions, headDim / 4 + 1] vec4, the last of each (maximum, sum, 0, 0);
 * output f32 rows as queries.
 *
 * Segments run one after the other: each skips blocks that are not its own and goes on from the
 * partial of the one before (`isFirst` = 0). With one partition and one segment the result goes
 * straight to the output (`isDirect` = 1); else merge-partials follows.
 *
 * Loop bounds that contain barriers depend on uniforms only, never on `lengths`, so that the text
 * is valid also where every binding is writable. All arithmetic in f32; the maximum is subtracted
 * before exp, so no logit overflows; a length of 0 gives zeros. Workgroup memory: below 12 KiB at
 * headDim
 * 256. Source: Dao et al., "Flash-Decoding for long-context inference", 2023.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import type { KvShape } from '../kv-layout.js';
import { kvBindingType, wgslKvShape } from './kv-shape.wgsl.js';
import { LOWEST, unroll } from './unroll.js';

/** Invocations of a workgroup. */
export const DECODE_LANES = 64;
/** Tokens scored between two barriers. */
export const DECODE_TILE = 128;
/** Most query heads that one workgroup serves. */
export const DECODE_MAX_HEADS = 4;

/** Parameters of the decode kernel. */
export interface DecodeParams {
  readonly shape: KvShape;
  /** Query heads that one workgroup serves; divides heads / kvHeads. */
  readonly headsPerWorkgroup: number;
}

function wgslScores(heads: number): string {
  return /* wgsl */ `
    for (var d = 0u; d < HEAD_VECTORS * uniforms.one; d++) {
      let k = widen(kv[at + d * BLOCK_SIZE]);
      ${unroll(heads, (r) => `s${r} += dot(k, query[${r}u * HEAD_VECTORS + d]);`)}
    }`;
}

function wgslTile(heads: number, withLogits: boolean): string {
  const keep = (r: number): string =>
    `logits[(sequence * uniforms.heads + head + ${r}u) * uniforms.logitStride + token] = s${r};`;
  return /* wgsl */ `
  let first = start + tile * TILE;
  let count = min(max(end, first) - first, TILE);
  ${unroll(heads, (r) => `var top${r} = LOWEST;`)}
  for (var t = lane; t < count; t += LANES) {
    let token = first + t;
    let block = blockTables[table + token / BLOCK_SIZE] - uniforms.firstBlock;
    let offset = token % BLOCK_SIZE;
    ${unroll(heads, (r) => `var s${r} = 0.0;`)}
    if (block < uniforms.blockCount) {
      let at = key_at(block, kv_head, offset);
      ${wgslScores(heads)}
      places[t] = value_at(block, kv_head, offset);
      ${unroll(heads, (r) => `top${r} = max(top${r}, s${r});`)}
      ${withLogits ? unroll(heads, keep) : ''}
    } else {
      places[t] = NOWHERE;
    }
    ${unroll(heads, (r) => `scores[${r}u * TILE + t] = s${r};`)}
  }
  ${unroll(heads, (r) => `lane_values[${r}u * LANES + lane] = top${r};`)}
  workgroupBarrier();
  for (var i = 0u; i < LANES; i++) {
    ${unroll(heads, (r) => `top${r} = max(top${r}, lane_values[${r}u * LANES + i]);`)}
  }
  ${unroll(heads, (r) => `top${r} = max(top${r}, maximum${r});`)}
  ${unroll(heads, (r) => `let shrink${r} = exp(maximum${r} - top${r});`)}
  ${unroll(heads, (r) => `maximum${r} = top${r}; sum${r} *= shrink${r}; sums${r} *= shrink${r};`)}
  for (var t = lane; t < count; t += LANES) {
    if (places[t] != NOWHERE) {
      ${unroll(
        heads,
        (r) => `let p${r} = exp(scores[${r}u * TILE + t] - top${r});
      scores[${r}u * TILE + t] = p${r}; sum${r} += p${r};`,
      )}
    }
  }
  workgroupBarrier();
  if (group < GROUPS) {
    for (var t = group; t < count; t += GROUPS) {
      let at = places[t];
      if (at != NOWHERE) {
        let v = widen(kv[at + column]);
        ${unroll(heads, (r) => `sums${r} += scores[${r}u * TILE + t] * v;`)}
      }
    }
  }
  workgroupBarrier();`;
}

/** The last step: lanes over (head, four elements) gather what the groups and lanes hold. */
const wgslFinish = /* wgsl */ `
  for (var i = lane; i < HEADS * HEAD_VECTORS; i += LANES) {
    let r = i / HEAD_VECTORS;
    let d = i % HEAD_VECTORS;
    var result = vec4<f32>(0.0);
    for (var g = 0u; g < GROUPS * uniforms.one; g++) {
      result += parts[r * LANES + g * HEAD_VECTORS + d];
    }
    var sum = 0.0;
    for (var j = 0u; j < LANES; j++) { sum += lane_values[r * LANES + j]; }
    var maximum = maxima[r];
    let row = sequence * uniforms.heads + head + r;
    if (uniforms.isDirect == 1u) {
      let to = (uniforms.outputOffset + sequence * uniforms.outputStride) / 4u
        + (head + r) * HEAD_VECTORS + d;
      output[to] = select(result / sum, vec4<f32>(0.0), sum == 0.0);
      continue;
    }
    let partial = (row * uniforms.partitions + part) * (HEAD_VECTORS + 1u);
    let state = partial + HEAD_VECTORS;
    if (uniforms.isFirst == 0u) {
      let before = states[r];
      let top = max(before.x, maximum);
      let old = exp(before.x - top);
      let new_share = exp(maximum - top);
      result = partials[partial + d] * old + result * new_share;
      sum = before.y * old + sum * new_share;
      maximum = top;
    }
    partials[partial + d] = result;
    if (d == 0u) { partials[state] = vec4<f32>(maximum, sum, 0.0, 0.0); }
  }`;

function decodeSource(
  { shape, headsPerWorkgroup: heads }: DecodeParams,
  withLogits: boolean,
): string {
  return /* wgsl */ `
${wgslLinearWorkgroup}
${wgslKvShape(shape)}
const LANES = ${DECODE_LANES}u;
const TILE = ${DECODE_TILE}u;
const HEADS = ${heads}u;
const GROUPS = LANES / HEAD_VECTORS;
const NOWHERE = 0xffffffffu;
const LOWEST = ${LOWEST};
var<workgroup> query: array<vec4<f32>, HEADS * HEAD_VECTORS>;
var<workgroup> scores: array<f32, HEADS * TILE>;
var<workgroup> places: array<u32, TILE>;
var<workgroup> lane_values: array<f32, HEADS * LANES>;
var<workgroup> parts: array<vec4<f32>, HEADS * LANES>;
var<workgroup> maxima: array<f32, HEADS>;
var<workgroup> states: array<vec2<f32>, HEADS>;

@compute @workgroup_size(${DECODE_LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let work = linear_workgroup(id, groups);
  let part = work % uniforms.partitions;
  let head_groups = uniforms.heads / HEADS;
  let sequence = work / uniforms.partitions / head_groups;
  if (sequence >= uniforms.sequences) { return; }
  let head = (work / uniforms.partitions % head_groups) * HEADS;
  let kv_head = head / (uniforms.heads / KV_HEADS);
  let table = sequence * uniforms.tableStride;
  let start = part * uniforms.partitionTokens;
  let end = min(min(lengths[sequence], uniforms.tableStride * BLOCK_SIZE),
    start + uniforms.partitionTokens);
  let group = lane / HEAD_VECTORS;
  let column = lane % HEAD_VECTORS;
  let source = (uniforms.queryOffset + sequence * uniforms.queryStride) / 4u + head * HEAD_VECTORS;
  for (var i = lane; i < HEADS * HEAD_VECTORS; i += LANES) {
    query[i] = queries[source + i] * uniforms.scale;
  }
  workgroupBarrier();
  ${unroll(
    heads,
    (r) => `var maximum${r} = LOWEST; var sum${r} = 0.0; var sums${r} = vec4<f32>(0.0);`,
  )}
  for (var tile = 0u; tile * TILE < uniforms.partitionTokens; tile++) {
    ${wgslTile(heads, withLogits)}
  }
  ${unroll(
    heads,
    (r) => `parts[${r}u * LANES + lane] = sums${r}; lane_values[${r}u * LANES + lane] = sum${r};`,
  )}
  if (lane == 0u) {
    ${unroll(heads, (r) => `maxima[${r}u] = maximum${r};`)}
    for (var r = 0u; r < HEADS; r++) {
      let row = sequence * uniforms.heads + head + r;
      let state = (row * uniforms.partitions + part + 1u) * (HEAD_VECTORS + 1u) - 1u;
      states[r] = select(partials[state].xy, vec2<f32>(0.0), uniforms.isDirect == 1u);
    }
  }
  workgroupBarrier();
  ${wgslFinish}
}
`;
}

const bindings = {
  queries: { access: 'read', type: 'array<vec4<f32>>' },
  kv: { access: 'read', type: kvBindingType },
  blockTables: { access: 'read', type: 'array<u32>' },
  lengths: { access: 'read', type: 'array<u32>' },
  partials: { access: 'read-write', type: 'array<vec4<f32>>' },
  output: { access: 'read-write', type: 'array<vec4<f32>>' },
} as const;

const uniforms = {
  sequences: 'u32',
  heads: 'u32',
  /** 1; see unroll.ts. */
  one: 'u32',
  tableStride: 'u32',
  partitions: 'u32',
  partitionTokens: 'u32',
  firstBlock: 'u32',
  blockCount: 'u32',
  queryOffset: 'u32',
  queryStride: 'u32',
  outputOffset: 'u32',
  outputStride: 'u32',
  isFirst: 'u32',
  isDirect: 'u32',
  scale: 'f32',
} as const;

/**
 * The kernel; dispatch sequences * (heads / headsPerWorkgroup) * partitions workgroups a segment.
 */
export const decodeAttentionKernel = defineKernel({
  name: 'decode-attention',
  bindings,
  uniforms,
  source: (params: DecodeParams) => decodeSource(params, false),
});

/**
 * The same, which also leaves every logit: logits f32 [sequences * heads, logitStride], scaled, by
 * token.
 */
export const decodeAttentionLogitsKernel = defineKernel({
  name: 'decode-attention-logits',
  bindings: { ...bindings, logits: { access: 'read-write', type: 'array<f32>' } },
  uniforms: { ...uniforms, logitStride: 'u32' },
  source: (params: DecodeParams) => decodeSource(params, true),
});
