/**
 * The mean of one number over the tokens of a block, all layers and all KV heads, so that a block
 * that has filled gives one number to its policy instead of thousands.
 *
 * A block of n tokens is a run of `perLayer` numbers in each of `layers` parts, `layerStride`
 * apart:
 *
 * ```
 *   norms   [slots, layers, kvHeads, 2]    one part of n * layers * kvHeads pairs, block id counted
 *                                          from the segment's first
 *   sums    [layers, capacity, kvHeads]    n * kvHeads of each layer, block counted in the sequence
 * ```
 *
 * Shapes: blocks u32 [count]; means f32 [count, 2], the mean and how many of the numbers behind it
 * were not finite, told by their bits, since a shader may assume that there are none. One workgroup
 * takes one block; the order of addition is fixed. Sums in f32. Blocks outside the segment are
 * left alone.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';

/** Invocations of a workgroup, a power of two. */
const LANES = 64;

/** The numbers that a mean can be of. */
export type BlockStatistic = 'keyNorm' | 'valueNorm' | 'valueOverKeyNorm' | 'sum';

const NUMBERS: Record<BlockStatistic, string> = {
  keyNorm: 'values[2u * at]',
  valueNorm: 'values[2u * at + 1u]',
  valueOverKeyNorm: 'values[2u * at + 1u] / max(values[2u * at], uniforms.epsilon)',
  sum: 'values[at]',
};

const INFINITE: Record<BlockStatistic, string> = {
  keyNorm: 'infinite(values[2u * at])',
  valueNorm: 'infinite(values[2u * at + 1u])',
  valueOverKeyNorm: 'infinite(values[2u * at]) + infinite(values[2u * at + 1u])',
  sum: 'infinite(values[at])',
};

/** The kernel; dispatch one workgroup per listed block. */
export const blockMeansKernel = defineKernel({
  name: 'block-means',
  bindings: {
    blocks: { access: 'read', type: 'array<u32>' },
    values: { access: 'read', type: 'array<f32>' },
    means: { access: 'read-write', type: 'array<vec2<f32>>' },
  },
  uniforms: {
    count: 'u32',
    firstBlock: 'u32',
    blockCount: 'u32',
    layers: 'u32',
    perLayer: 'u32',
    layerStride: 'u32',
    epsilon: 'f32',
  },
  source: ({ statistic }: { readonly statistic: BlockStatistic }) => /* wgsl */ `
${wgslLinearWorkgroup}
const LANES = ${LANES}u;
var<workgroup> parts: array<vec2<f32>, LANES>;
fn infinite(value: f32) -> f32 {
  return select(0.0, 1.0, (bitcast<u32>(value) & 0x7f800000u) == 0x7f800000u);
}
@compute @workgroup_size(${LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let work = linear_workgroup(id, groups);
  if (work >= uniforms.count) { return; }
  let block = blocks[work] - uniforms.firstBlock;
  let numbers = select(0u, uniforms.layers * uniforms.perLayer, block < uniforms.blockCount);
  var part = vec2<f32>(0.0);
  for (var i = lane; i < numbers; i += LANES) {
    let at = i / uniforms.perLayer * uniforms.layerStride + block * uniforms.perLayer
      + i % uniforms.perLayer;
    part += vec2<f32>(${NUMBERS[statistic]}, ${INFINITE[statistic]});
  }
  parts[lane] = part;
  workgroupBarrier();
  for (var width = LANES / 2u; width > 0u; width /= 2u) {
    if (lane < width) { parts[lane] += parts[lane + width]; }
    workgroupBarrier();
  }
  if (lane == 0u && numbers > 0u) {
    means[work] = vec2<f32>(parts[0].x / f32(numbers), parts[0].y);
  }
}
`,
});
