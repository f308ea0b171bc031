/**
 * Causal attention of many query tokens of one sequence over the K and V of its block table.
 *
 * A workgroup of 8 x 8 lanes serves 8 * ROWS rows of one KV head, a row being a (query token, query
 * head) pair, so that query heads which share keys share the loads too. It walks the keys in tiles of
 * 8 * KEYS with an online softmax:
 *
 *   1. logits: a lane computes ROWS x KEYS of them in registers, and the maximum of each of its rows
 *   2. barrier; the tile's row maxima; exp in registers, into workgroup memory
 *   3. barrier; values: a lane adds to ROWS x COLUMNS vectors of four outputs in registers
 *
 * Two barriers a tile suffice: weights are written after the first, and maxima before it, when every
 * lane has left the step that read the other. Queries and keys come straight from memory, where
 * neighbouring lanes read the same or neighbouring vectors; staging them would cost workgroup memory
 * that large heads do not leave. Workgroup memory: (8 * ROWS) x (8 * KEYS + 8) x 4 bytes.
 *
 * Shapes: queries f32 [tokens, heads, headDim] rows, `queryStride` elements apart; kv a layer's
 * segment; blockTable [blocks]; states [tokens, heads] (maximum, sum), used between segments only;
 * output f32 rows as queries. Query i sees slots 0 .. contextLength + i in logical order.
 *
 * Segments run one after the other: each takes its own blocks; between them the output holds the
 * unnormalised accumulators (`isFirst`, `isLast`). A value behind the last visible slot is never
 * multiplied, so what an unwritten slot holds does not matter. All arithmetic in f32. Bounds of loops
 * with many steps are uniforms, so that no driver unrolls them. Sources: Milakov and Gimelshein, 2018
 * (arXiv 1805.02867); Dao et al., FlashAttention, 2022 (arXiv 2205.14135).
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import type { KvShape } from '../kv-layout.js';
import { kvBindingType, wgslKvShape } from './kv-shape.wgsl.js';
import { LOWEST, unroll } from './unroll.js';

/** Lanes along rows, and along keys or columns. */
const SIDE = 8;
/** Rows of a lane. */
const ROWS = 4;
/** Keys of a lane: one vector. */
const KEYS = 4;
/** Rows of a workgroup. */
export const PREFILL_ROWS = SIDE * ROWS;

const rows = Array.from({ length: ROWS }, (_, row) => row);
const keys = Array.from({ length: KEYS }, (_, key) => key);
const lines = (parts: readonly string[]): string => parts.join('\n      ');
const eachRow = (text: (row: number) => string): string => unroll(ROWS, text);

/** Step 1: `s0` .. `s3` become the logits of the lane's rows and four keys. */
const wgslLogits = /* wgsl */ `
    let token = start + lane_x * ${KEYS}u;
    var block = NOWHERE;
    if (token < end) { block = blockTable[token / BLOCK_SIZE] - uniforms.firstBlock; }
    ${eachRow((r) => `var s${r} = vec4<f32>(0.0);`)}
    if (block < uniforms.blockCount) {
      var key = key_at(block, kv_head, token % BLOCK_SIZE);
      for (var d = 0u; d < uniforms.headVectors; d++) {
        let k = mat4x4<f32>(${keys.map((k) => `widen(kv[key + ${k}u])`).join(', ')});
        ${eachRow((r) => `s${r} += queries[query${r} + d] * k;`)}
        key += BLOCK_SIZE;
      }
      let tokens = token + vec4<u32>(0u, 1u, 2u, 3u);
      ${eachRow((r) => `s${r} = select(vec4<f32>(LOWEST), s${r} * uniforms.scale, tokens <= vec4<u32>(last${r}));`)}
    } else {
      ${eachRow((r) => `s${r} = vec4<f32>(LOWEST);`)}
    }
    ${eachRow(
      (r) => `tops[(lane_y * ${ROWS}u + ${r}u) * SIDE + lane_x] =
        max(max(s${r}.x, s${r}.y), max(s${r}.z, s${r}.w));`,
    )}`;

/** Step 2: weights of the tile, and the rows' maxima and sums. */
const wgslWeights = eachRow(
  (r) => `{
      let row = lane_y * ${ROWS}u + ${r}u;
      var top = maximum${r};
      for (var i = 0u; i < SIDE; i++) { top = max(top, tops[row * SIDE + i]); }
      let p = select(exp(s${r} - top), vec4<f32>(0.0), s${r} <= vec4<f32>(LOWEST));
      shrink${r} = exp(maximum${r} - top);
      maximum${r} = top;
      sum${r} = sum${r} * shrink${r} + dot(p, vec4<f32>(1.0));
      weights[row * SIDE + lane_x] = p;
    }`,
);

/** Step 3: weighted values of the tile's keys, four keys at a time. */
function wgslValues(columns: number): string {
  const each = (text: (row: number, column: number) => string): string =>
    lines(rows.flatMap((r) => Array.from({ length: columns }, (_, c) => text(r, c))));
  const load = (key: number): string =>
    `select(vec4<f32>(0.0), widen(kv[value + ${key}u * HEAD_VECTORS]), token + ${key}u < end)`;
  return /* wgsl */ `
    ${each((r, c) => `a${r}_${c} *= shrink${r};`)}
    let key_groups = min(SIDE, (end - start + ${KEYS - 1}u) / ${KEYS}u);
    for (var i = 0u; i < key_groups; i++) {
      let token = start + i * ${KEYS}u;
      let block = blockTable[token / BLOCK_SIZE] - uniforms.firstBlock;
      if (block >= uniforms.blockCount) { continue; }
      let first_value = value_at(block, kv_head, token % BLOCK_SIZE);
      ${eachRow((r) => `let p${r} = weights[(lane_y * ${ROWS}u + ${r}u) * SIDE + i];`)}
      ${unroll(
        columns,
        (c) => `{
        let value = first_value + min(lane_x + ${c}u * SIDE, HEAD_VECTORS - 1u);
        let v = mat4x4<f32>(${keys.map(load).join(', ')});
        ${eachRow((r) => `a${r}_${c} += v * p${r};`)}
      }`,
      )}
    }`;
}

/** Parameters of the prefill kernel. */
export interface PrefillParams {
  readonly shape: KvShape;
}

/** The kernel; dispatch ceil(tokens * heads / kvHeads / PREFILL_ROWS) * kvHeads per segment. */
export const prefillAttentionKernel = defineKernel({
  name: 'prefill-attention',
  bindings: {
    queries: { access: 'read', type: 'array<vec4<f32>>' },
    kv: { access: 'read', type: kvBindingType },
    blockTable: { access: 'read', type: 'array<u32>' },
    states: { access: 'read-write', type: 'array<vec2<f32>>' },
    output: { access: 'read-write', type: 'array<vec4<f32>>' },
  },
  uniforms: {
    tokens: 'u32',
    heads: 'u32',
    contextLength: 'u32',
    headVectors: 'u32',
    firstBlock: 'u32',
    blockCount: 'u32',
    queryOffset: 'u32',
    queryStride: 'u32',
    outputOffset: 'u32',
    outputStride: 'u32',
    isFirst: 'u32',
    isLast: 'u32',
    scale: 'f32',
  },
  source: ({ shape }: PrefillParams) => {
    const columns = Math.ceil(shape.headDim / 4 / SIDE);
    const eachColumn = (text: (column: number) => string): string => unroll(columns, text);
    return /* wgsl */ `
${wgslLinearWorkgroup}
${wgslKvShape(shape)}
const SIDE = ${SIDE}u;
const NOWHERE = 0xffffffffu;
const LOWEST = ${LOWEST};
var<workgroup> tops: array<f32, ${PREFILL_ROWS * SIDE}>;
var<workgroup> weights: array<vec4<f32>, ${PREFILL_ROWS * SIDE}>;

@compute @workgroup_size(${SIDE * SIDE})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let work = linear_workgroup(id, groups);
  let kv_head = work % KV_HEADS;
  let ratio = uniforms.heads / KV_HEADS;
  let row_count = uniforms.tokens * ratio;
  let first_row = work / KV_HEADS * ${PREFILL_ROWS}u;
  if (first_row >= row_count) { return; }
  let lane_x = lane % SIDE;
  let lane_y = lane / SIDE;
  let last_row = min(first_row + ${PREFILL_ROWS}u, row_count) - 1u;
  let end = uniforms.contextLength + last_row / ratio + 1u;
  // Rows behind the last one repeat it and are not stored.
  ${eachRow(
    (r) => `let row${r} = min(first_row + lane_y * ${ROWS}u + ${r}u, last_row);
  let token${r} = row${r} / ratio;
  let head${r} = kv_head * ratio + row${r} % ratio;
  let last${r} = uniforms.contextLength + token${r};
  let query${r} = (uniforms.queryOffset + token${r} * uniforms.queryStride) / 4u + head${r} * HEAD_VECTORS;
  let to${r} = (uniforms.outputOffset + token${r} * uniforms.outputStride) / 4u + head${r} * HEAD_VECTORS;
  var maximum${r} = LOWEST;
  var sum${r} = 0.0;
  var shrink${r} = 1.0;
  ${eachColumn((c) => `var a${r}_${c} = vec4<f32>(0.0);`)}`,
  )}
  if (uniforms.isFirst == 0u) {
    ${eachRow(
      (r) => `{
      let state = states[token${r} * uniforms.heads + head${r}];
      maximum${r} = state.x;
      sum${r} = select(0.0, state.y, lane_x == 0u);
      ${eachColumn((c) => `a${r}_${c} = output[to${r} + min(lane_x + ${c}u * SIDE, HEAD_VECTORS - 1u)];`)}
    }`,
    )}
  }
  for (var start = 0u; start < end; start += ${SIDE * KEYS}u) {
    ${wgslLogits}
    workgroupBarrier();
    ${wgslWeights}
    workgroupBarrier();
    ${wgslValues(columns)}
  }
  workgroupBarrier();
  ${eachRow((r) => `tops[(lane_y * ${ROWS}u + ${r}u) * SIDE + lane_x] = sum${r};`)}
  workgroupBarrier();
  ${eachRow(
    (r) => `if (first_row + lane_y * ${ROWS}u + ${r}u <= last_row) {
    var sum = 0.0;
    for (var i = 0u; i < SIDE; i++) { sum += tops[(lane_y * ${ROWS}u + ${r}u) * SIDE + i]; }
    var factor = 1.0;
    if (uniforms.isLast == 1u) {
      factor = select(1.0 / sum, 0.0, sum == 0.0);
    } else if (lane_x == 0u) {
      states[token${r} * uniforms.heads + head${r}] = vec2<f32>(maximum${r}, sum);
    }
    ${eachColumn(
      (c) => `if (lane_x + ${c}u * SIDE < HEAD_VECTORS) {
      output[to${r} + lane_x + ${c}u * SIDE] = a${r}_${c} * factor;
    }`,
    )}
  }`,
  )}
}
`;
  },
});
