/**
 * How alike the keys of a sequence are: sums of unit keys, then the cosine of each key and the sum
 * (KeyDiff, arXiv 2504.15364).
 *
 * Two kernels over one layer. Both read keys as they are stored, so that a key's cosine with itself
 * is 1 whatever the storage rounds. Sums are over parts of PART tokens, which the second kernel
 * adds up, so that many workgroups share a long sequence and the result has one order of addition.
 *
 * Shapes: slots u32 [tokens]; kv a layer's segment; sums f32 [parts, kvHeads, headDim]; similarity
 * f32 [tokens, kvHeads]. Segments run one after the other: the first kernel adds to sums where
 * `isFirst` is 0, the second writes the tokens of its segment only. A zero key, and a zero sum, has
 * similarity 0; one key that is not finite makes its whole head infinite, told by its bits, since a
 * clamp would hide it. Sums in f32.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import type { KvShape } from '../kv-layout.js';
import { kvBindingType, wgslKvShape, wgslNorm } from './kv-shape.wgsl.js';

/** Invocations of a workgroup, and tokens that it takes at once. */
export const DIRECTION_LANES = 64;
/** Tokens of a part, several times the lanes. */
export const DIRECTION_PART = 256;

const slotOf = /* wgsl */ `
${wgslNorm}
fn slot_key(token: u32, kv_head: u32) -> u32 {
  let slot = slots[token];
  let block = slot / BLOCK_SIZE - uniforms.firstBlock;
  if (block >= uniforms.blockCount) { return 0xffffffffu; }
  return key_at(block, kv_head, slot % BLOCK_SIZE);
}
fn key_norm(key: u32) -> f32 {
  var sums = vec3<f32>(0.0);
  for (var d = 0u; d < HEAD_VECTORS * uniforms.one; d++) {
    sums += squares(widen(kv[key + d * BLOCK_SIZE]));
  }
  return norm_of(sums);
}
`;

const reads = {
  slots: { access: 'read', type: 'array<u32>' },
  kv: { access: 'read', type: kvBindingType },
} as const;

const segment = { tokens: 'u32', firstBlock: 'u32', blockCount: 'u32', one: 'u32' } as const;

/** The sums; dispatch ceil(tokens / DIRECTION_PART) * kvHeads workgroups per segment. */
export const keyDirectionKernel = defineKernel({
  name: 'key-direction',
  bindings: { ...reads, sums: { access: 'read-write', type: 'array<vec4<f32>>' } },
  uniforms: { ...segment, isFirst: 'u32' },
  source: ({ shape }: { readonly shape: KvShape }) => /* wgsl */ `
${wgslLinearWorkgroup}
${wgslKvShape(shape)}
const LANES = ${DIRECTION_LANES}u;
const NOWHERE = 0xffffffffu;
var<workgroup> places: array<u32, LANES>;
var<workgroup> factors: array<f32, LANES>;
${slotOf}
@compute @workgroup_size(${DIRECTION_LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let work = linear_workgroup(id, groups);
  let kv_head = work % KV_HEADS;
  let start = work / KV_HEADS * ${DIRECTION_PART}u;
  if (start >= uniforms.tokens) { return; }
  var sum = vec4<f32>(0.0);
  for (var first = start; first < start + ${DIRECTION_PART}u; first += LANES) {
    let token = first + lane;
    var key = NOWHERE;
    if (token < uniforms.tokens) { key = slot_key(token, kv_head); }
    places[lane] = key;
    if (key != NOWHERE) {
      let norm = key_norm(key);
      factors[lane] = select(1.0 / norm, 0.0, norm == 0.0);
    }
    workgroupBarrier();
    if (lane < HEAD_VECTORS) {
      for (var i = 0u; i < LANES * uniforms.one; i++) {
        let at = places[i];
        if (at != NOWHERE) { sum += widen(kv[at + lane * BLOCK_SIZE]) * factors[i]; }
      }
    }
    workgroupBarrier();
  }
  if (lane < HEAD_VECTORS) {
    let to = work * HEAD_VECTORS + lane;
    if (uniforms.isFirst == 0u) { sum += sums[to]; }
    sums[to] = sum;
  }
}
`,
});

/** The cosines; dispatch ceil(tokens / DIRECTION_LANES) * kvHeads workgroups per segment. */
export const keySimilarityKernel = defineKernel({
  name: 'key-similarity',
  bindings: {
    ...reads,
    sums: { access: 'read', type: 'array<vec4<f32>>' },
    similarity: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: { ...segment, parts: 'u32' },
  source: ({ shape }: { readonly shape: KvShape }) => /* wgsl */ `
${wgslLinearWorkgroup}
${wgslKvShape(shape)}
const LANES = ${DIRECTION_LANES}u;
const NOWHERE = 0xffffffffu;
var<workgroup> direction: array<vec4<f32>, HEAD_VECTORS>;
${slotOf}
@compute @workgroup_size(${DIRECTION_LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let work = linear_workgroup(id, groups);
  let kv_head = work % KV_HEADS;
  let token = work / KV_HEADS * LANES + lane;
  if (lane < HEAD_VECTORS) {
    var sum = vec4<f32>(0.0);
    for (var part = 0u; part < uniforms.parts; part++) {
      sum += sums[(part * KV_HEADS + kv_head) * HEAD_VECTORS + lane];
    }
    direction[lane] = sum;
  }
  workgroupBarrier();
  if (token >= uniforms.tokens) { return; }
  let key = slot_key(token, kv_head);
  if (key == NOWHERE) { return; }
  // Of a unit key: no product leaves f32.
  let norm = key_norm(key);
  var product = 0.0;
  var square = 0.0;
  for (var d = 0u; d < HEAD_VECTORS * uniforms.one; d++) {
    product += dot(widen(kv[key + d * BLOCK_SIZE]) / norm, direction[d]);
    square += dot(direction[d], direction[d]);
  }
  let length = sqrt(square);
  var cosine = select(clamp(product / length, -1.0, 1.0), 0.0, norm == 0.0 || length == 0.0);
  let not_finite = 0x7f800000u * uniforms.one;
  if ((bitcast<u32>(norm + length) & not_finite) == not_finite) {
    cosine = bitcast<f32>(not_finite);
  }
  similarity[token * KV_HEADS + kv_head] = cosine;
}
`,
});
