/**
 * Writes K and V of a step's tokens to their slots, and their L2 norms in the same pass.
 *
 * Shapes: keys, values f32, one row of kvHeads * headDim per token, `*Stride` elements apart from
 * `*Offset` on (both may be parts of one fused buffer); slots [tokens] from
 * `firstToken` on; kv a layer's segment; norms
 * the segment's [slot, layer, kvHead, 2]. A slot outside the segment, or 0xffffffff, is skipped.
 *
 * One invocation writes one head of one token's key or value: it owns the whole norm, so there is
 * no barrier. Tokens run fastest over lanes; a prefill's slots are consecutive, so key stores
 * coalesce. Norms are of the f32 input, before rounding to f16; sums in f32, of any size that f32
 * holds.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import type { KvShape } from '../kv-layout.js';
import { kvBindingType, wgslNorm, wgslWritableKvShape } from './kv-shape.wgsl.js';

/** Invocations of a workgroup. */
export const WRITE_KV_LANES = 64;

/** The kernel; dispatch ceil(tokens * kvHeads * 2 / WRITE_KV_LANES) workgroups per segment. */
export const writeKvKernel = defineKernel({
  name: 'write-kv',
  bindings: {
    keys: { access: 'read', type: 'array<vec4<f32>>' },
    values: { access: 'read', type: 'array<vec4<f32>>' },
    slots: { access: 'read', type: 'array<u32>' },
    kv: { access: 'read-write', type: kvBindingType },
    norms: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: {
    tokens: 'u32',
    firstToken: 'u32',
    layer: 'u32',
    layers: 'u32',
    /** 1; see unroll.ts. */
    one: 'u32',
    keyOffset: 'u32',
    keyStride: 'u32',
    valueOffset: 'u32',
    valueStride: 'u32',
    firstBlock: 'u32',
    blockCount: 'u32',
  },
  source: (params: { readonly shape: KvShape }) => /* wgsl */ `
${wgslLinearWorkgroup}
${wgslWritableKvShape(params.shape)}
${wgslNorm}
@compute @workgroup_size(${WRITE_KV_LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = linear_workgroup(id, groups) * ${WRITE_KV_LANES}u + lane;
  let token = i % uniforms.tokens;
  let row = i / uniforms.tokens;
  if (row >= 2u * KV_HEADS) { return; }
  let slot = slots[uniforms.firstToken + token];
  let block = slot / BLOCK_SIZE - uniforms.firstBlock;
  if (slot == 0xffffffffu || block >= uniforms.blockCount) { return; }
  let head = row % KV_HEADS;
  let offset = slot % BLOCK_SIZE;
  var sums = vec3<f32>(0.0);
  if (row < KV_HEADS) {
    let source = (uniforms.keyOffset + token * uniforms.keyStride) / 4u + head * HEAD_VECTORS;
    let to = key_at(block, head, offset);
    for (var d = 0u; d < HEAD_VECTORS * uniforms.one; d++) {
      let x = keys[source + d];
      sums += squares(x);
      kv[to + d * BLOCK_SIZE] = narrow(x);
    }
  } else {
    let source = (uniforms.valueOffset + token * uniforms.valueStride) / 4u + head * HEAD_VECTORS;
    let to = value_at(block, head, offset);
    for (var d = 0u; d < HEAD_VECTORS * uniforms.one; d++) {
      let x = values[source + d];
      sums += squares(x);
      kv[to + d] = narrow(x);
    }
  }
  let local_slot = block * BLOCK_SIZE + offset;
  let norm = ((local_slot * uniforms.layers + uniforms.layer) * KV_HEADS + head) * 2u;
  norms[norm + row / KV_HEADS] = norm_of(sums);
}
`,
});
