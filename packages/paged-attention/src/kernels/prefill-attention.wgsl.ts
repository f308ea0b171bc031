/**
 * Causal attention of many query tokens of one sequence over the K and V of its block table.
 *
 * A workgroup of 8 x 8 lanes serves 8 * ROWS rows of one KV head, a row being a (query token, query
 * head) pair, so that query heads which share keys share the loads too. It walks the keys in tiles
 * of 8 * KEYS (4 or 8 keys a lane) with an online softmax:
 *
 *   1. logits: a lane computes ROWS x KEYS of them in registers, and the maximum of each of its
 *      rows
 *   2. barrier; the tile's row maxima; exp in registers, into workgroup memory
 *   3. barrier; values: a lane adds to ROWS x COLUMNS vectors of four outputs in registers
 *
 * Two barriers a tile suffice: weights are written after the first, and maxima before it, when
 * every lane has left the step that read the other. Queries and keys come straight from memory,
 * where neighbouring lanes read the same or neighbouring vectors; staging them would cost workgroup
 * memory that large heads do not leave. Workgroup memory: 9 KiB at 8 keys a lane.
 *
 * Shapes: queries f32 [tokens, heads, headDim] rows, `queryStride` elements apart; kv a layer's
 * segment; blockTable [blocks]; states [tokens, heads] (maximum, sum), used between segments only;
 * output f32 rows as queries. Query i sees slots 0 .. contextLength + i in logical order.
 *
 * Segments run one after the other (`segmented`): each takes its own blocks; between them the
 * output holds the unnormalised accumulators (`isFirst`, `isLast`). A value that a row does not
 * see is never multiplied, not even by zero: an infinite one of a later token, or what an unwritten
 * slot holds, does not matter. Tiles that not all rows see whole look at that key by key. All
 * arithmetic in f32.
 *
 * Sources: Milakov and Gimelshein, 2018 (arXiv 1805.02867); Dao et al., FlashAttention, 2022 (arXiv
 * 2205.14135).
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import type { KvShape } from '../kv-layout.js';
import { kvBindingType, wgslKvShape } from './kv-shape.wgsl.js';
import { LOWEST, unroll } from './unroll.js';

/** Lanes along rows, and along keys or columns. */
const SIDE = 8;
/** Rows of a lane: four, so that a vector holds one number of each. */
const ROWS = 4;
/** Rows of a workgroup. */
export const PREFILL_ROWS = SIDE * ROWS;
/** Keys of the largest tile: rows of logits are a multiple of it. */
export const PREFILL_TILE = SIDE * 8;

/** Parameters of the prefill kernel. */
export interface PrefillParams {
  readonly shape: KvShape;
  /** Whether storage has several segments: results are carried from one dispatch to the next. */
  readonly segmented: boolean;
}

const COMPONENTS = ['x', 'y', 'z', 'w'] as const;
/** The lane's c-th vector of a head, or the last one. */
const column = (c: number): string => `min(lane_x + ${c}u * SIDE, HEAD_VECTORS - 1u)`;
const eachRow = (text: (row: number) => string): string => unroll(ROWS, text);
const four = (text: (index: number) => string): string => [0, 1, 2, 3].map(text).join(', ');

/** Step 1: `s<row>_<group>` become the logits of the lane's rows and keys, four keys a group. */
function wgslLogits(groups: number): string {
  const each = (text: (row: number, group: number) => string): string =>
    eachRow((r) => unroll(groups, (g) => text(r, g)));
  const top = (r: number): string =>
    Array.from({ length: groups }, (_, g) =>
      COMPONENTS.map((component) => `s${r}_${g}.${component}`),
    )
      .flat()
      .reduce((a, b) => `max(${a}, ${b})`);
  return /* wgsl */ `
    let token = start + lane_x * KEYS;
    var block = NOWHERE;
    if (token < end) { block = blockTable[token / BLOCK_SIZE] - uniforms.firstBlock; }
    ${each((r, g) => `var s${r}_${g} = vec4<f32>(0.0);`)}
    if (block < uniforms.blockCount) {
      var key = key_at(block, kv_head, token % BLOCK_SIZE);
      for (var d = 0u; d < head_vectors; d++) {
        ${eachRow((r) => `let q${r} = queries[query${r} + d];`)}
        ${unroll(
          groups,
          (g) => `{
          let k = mat4x4<f32>(${four((k) => `widen(kv[key + ${4 * g + k}u])`)});
          ${eachRow((r) => `s${r}_${g} += q${r} * k;`)}
        }`,
        )}
        key += BLOCK_SIZE;
      }
      let tokens = token + vec4<u32>(0u, 1u, 2u, 3u);
      ${each(
        (r, g) => `s${r}_${g} = select(vec4<f32>(LOWEST), s${r}_${g} * uniforms.scale,
        tokens + ${4 * g}u <= vec4<u32>(last[${r}]));`,
      )}
    } else {
      ${each((r, g) => `s${r}_${g} = vec4<f32>(LOWEST);`)}
    }
    row_values[lane] = vec4<f32>(${four(top)});`;
}

/** Step 2: weights of the tile, and the rows' maxima and sums. */
function wgslWeights(groups: number, withLogits: boolean): string {
  const keep = (
    g: number,
  ): string => `if (block < uniforms.blockCount && lane_row + r <= last_row) {
          let row = (lane_row + r) / ratio * uniforms.heads + kv_head * ratio
            + (lane_row + r) % ratio;
          logits[row * uniforms.logitVectors + token / 4u + ${g}u] = s;
        }`;
  return /* wgsl */ `
    var top = maximum;
    for (var i = 0u; i < side; i++) { top = max(top, row_values[lane_y * SIDE + i]); }
    let shrink = exp(maximum - top);
    maximum = top;
    sum *= shrink;
    for (var r = 0u; r < rows; r++) {
      ${unroll(
        groups,
        (g) => `{
        let s = pick(r, ${four((r) => `s${r}_${g}`)});
        ${withLogits ? keep(g) : ''}
        let p = select(exp(s - top[r]), vec4<f32>(0.0), s <= vec4<f32>(LOWEST));
        sum[r] += dot(p, vec4<f32>(1.0));
        weights[((lane_y * SIDE + lane_x) * ${groups}u + ${g}u) * ${ROWS}u + r] = p;
      }`,
      )}
    }`;
}

/** Step 3: weighted values of the tile's keys, four keys at a time. */
function wgslValues(groups: number, columns: number): string {
  const load = (key: number): string => `widen(kv[value + ${key}u * HEAD_VECTORS])`;
  return /* wgsl */ `
    ${eachRow((r) => unroll(columns, (c) => `a${r}_${c} *= shrink[${r}];`))}
    let seen_by_all = start + SIDE * KEYS <= uniforms.contextLength + first_row / ratio + 1u;
    let key_groups = min(SIDE * ${groups}u, (end - start + 3u) / 4u);
    for (var i = 0u; i < key_groups; i++) {
      let token = start + i * 4u;
      let block = blockTable[token / BLOCK_SIZE] - uniforms.firstBlock;
      if (block >= uniforms.blockCount) { continue; }
      let first_value = value_at(block, kv_head, token % BLOCK_SIZE);
      let weight = (lane_y * SIDE * ${groups}u + i) * ${ROWS}u;
      if (!seen_by_all) {
        for (var key = token; key < min(token + 4u, end); key++) {
          let seen = vec4<u32>(key) <= last;
          ${eachRow((r) => `let p${r} = weights[weight + ${r}u][key - token];`)}
          ${unroll(
            columns,
            (c) => `{
            let v = widen(kv[first_value + (key - token) * HEAD_VECTORS + ${column(c)}]);
            ${eachRow((r) => `a${r}_${c} += select(vec4<f32>(0.0), v * p${r}, seen[${r}]);`)}
          }`,
          )}
        }
        continue;
      }
      ${eachRow((r) => `let p${r} = weights[weight + ${r}u];`)}
      ${unroll(
        columns,
        (c) => `{
        let value = first_value + ${column(c)};
        let v = mat4x4<f32>(${four(load)});
        ${eachRow((r) => `a${r}_${c} += v * p${r};`)}
      }`,
      )}
    }`;
}

/** Index in the output of the first vector of `token` and `head`. */
const wgslRowAt = /* wgsl */ `
fn output_at(token: u32, head: u32) -> u32 {
  return (uniforms.outputOffset + token * uniforms.outputStride) / 4u + head * HEAD_VECTORS;
}
fn pick(r: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) -> vec4<f32> {
  return select(select(a, b, r == 1u), select(c, d, r == 3u), r > 1u);
}
`;

/** Where the lane's rows are, and their state at the start. */
function wgslStart(columns: number, segmented: boolean): string {
  const carried = /* wgsl */ `
  if (uniforms.isFirst == 0u) {
    for (var r = 0u; r < rows; r++) {
      let row = min(lane_row + r, last_row);
      let token = row / ratio;
      let head = kv_head * ratio + row % ratio;
      let state = states[token * uniforms.heads + head];
      maximum[r] = state.x;
      sum[r] = select(0.0, state.y, lane_x == 0u);
      let carried = output_at(token, head);
      ${unroll(
        columns,
        (c) => `let c${c} = output[carried + ${column(c)}];
      ${eachRow((r) => `a${r}_${c} = select(a${r}_${c}, c${c}, r == ${r}u);`)}`,
      )}
    }
  }`;
  return /* wgsl */ `
  ${eachRow(
    (r) => `// Rows behind the last one repeat it and are not stored.
  let row${r} = min(lane_row + ${r}u, last_row);
  let query${r} = (uniforms.queryOffset + row${r} / ratio * uniforms.queryStride) / 4u
    + (kv_head * ratio + row${r} % ratio) * HEAD_VECTORS;
  ${unroll(columns, (c) => `var a${r}_${c} = vec4<f32>(0.0);`)}`,
  )}
  let last = uniforms.contextLength + vec4<u32>(${four((r) => `row${r}`)}) / ratio;
  var maximum = vec4<f32>(LOWEST);
  var sum = vec4<f32>(0.0);
  ${segmented ? carried : ''}`;
}

/** Sums over lanes, and the results of rows that exist. */
function wgslFinish(columns: number, segmented: boolean, withLogits: boolean): string {
  const carry = /* wgsl */ `if (${withLogits ? '' : 'uniforms.isLast == 0u && '}lane_x == 0u) {
      states[token * uniforms.heads + head] = vec2<f32>(maximum[r], total[r]);
    }`;
  return /* wgsl */ `
  workgroupBarrier();
  row_values[lane] = sum;
  workgroupBarrier();
  var total = vec4<f32>(0.0);
  for (var i = 0u; i < side; i++) { total += row_values[lane_y * SIDE + i]; }
  var factor = select(1.0 / total, vec4<f32>(0.0), total == vec4<f32>(0.0));
  ${segmented ? 'if (uniforms.isLast == 0u) { factor = vec4<f32>(1.0); }' : ''}
  for (var r = 0u; r < rows && lane_row + r <= last_row; r++) {
    let token = (lane_row + r) / ratio;
    let head = kv_head * ratio + (lane_row + r) % ratio;
    ${segmented || withLogits ? carry : ''}
    let to = output_at(token, head) + lane_x;
    ${unroll(
      columns,
      (c) => `if (lane_x + ${c}u * SIDE < HEAD_VECTORS) {
      output[to + ${c}u * SIDE] = pick(r, ${four((r) => `a${r}_${c}`)}) * factor[r];
    }`,
    )}
  }`;
}

function prefillSource({ shape, segmented }: PrefillParams, withLogits: boolean): string {
  const columns = Math.ceil(shape.headDim / 4 / SIDE);
  const groups = shape.blockSize % 8 === 0 ? 2 : 1;
  return /* wgsl */ `
${wgslLinearWorkgroup}
${wgslKvShape(shape)}
${wgslRowAt}
const SIDE = ${SIDE}u;
const KEYS = ${4 * groups}u;
const NOWHERE = 0xffffffffu;
const LOWEST = ${LOWEST};
var<workgroup> row_values: array<vec4<f32>, ${SIDE * SIDE}>;
var<workgroup> weights: array<vec4<f32>, ${SIDE * SIDE * groups * ROWS}>;

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
  let lane_row = first_row + lane_y * ${ROWS}u;
  let side = SIDE * uniforms.one;
  let rows = ${ROWS}u * uniforms.one;
  let head_vectors = HEAD_VECTORS * uniforms.one;
  ${wgslStart(columns, segmented)}
  for (var start = 0u; start < end; start += SIDE * KEYS) {
    ${wgslLogits(groups)}
    workgroupBarrier();
    ${wgslWeights(groups, withLogits)}
    workgroupBarrier();
    ${wgslValues(groups, columns)}
  }
  ${wgslFinish(columns, segmented, withLogits)}
}
`;
}

const bindings = {
  queries: { access: 'read', type: 'array<vec4<f32>>' },
  kv: { access: 'read', type: kvBindingType },
  blockTable: { access: 'read', type: 'array<u32>' },
  states: { access: 'read-write', type: 'array<vec2<f32>>' },
  output: { access: 'read-write', type: 'array<vec4<f32>>' },
} as const;

const uniforms = {
  tokens: 'u32',
  heads: 'u32',
  contextLength: 'u32',
  /** 1; see unroll.ts. */
  one: 'u32',
  firstBlock: 'u32',
  blockCount: 'u32',
  queryOffset: 'u32',
  queryStride: 'u32',
  outputOffset: 'u32',
  outputStride: 'u32',
  isFirst: 'u32',
  isLast: 'u32',
  scale: 'f32',
} as const;

/** The kernel; dispatch ceil(tokens * heads / kvHeads / PREFILL_ROWS) * kvHeads per segment. */
export const prefillAttentionKernel = defineKernel({
  name: 'prefill-attention',
  bindings,
  uniforms,
  source: (params: PrefillParams) => prefillSource(params, false),
});

/**
 * The same, which also leaves every logit, logits f32 [tokens * heads, 4 * logitVectors], scaled,
 * in rows of whole tiles; and the states of all rows.
 */
export const prefillAttentionLogitsKernel = defineKernel({
  name: 'prefill-attention-logits',
  bindings: { ...bindings, logits: { access: 'read-write', type: 'array<vec4<f32>>' } },
  uniforms: { ...uniforms, logitVectors: 'u32' },
  source: (params: PrefillParams) => prefillSource(params, true),
});
