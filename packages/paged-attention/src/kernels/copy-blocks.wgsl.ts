/**
 * Copies whole blocks, up to COPIES_PER_DISPATCH of them: a block of a range is contiguous, so K
 * and V of a layer and the norms are copied by the same kernel, as 32-bit words.
 *
 * The pairs are uniforms. A list in a buffer would have to be written before the batch is
 * submitted, and a second list would overwrite the first; uniforms belong to their dispatch and
 * need no buffer. Copies of one dispatch run in no order: no block may be the target of one and in
 * another.
 *
 * Two kinds, as in move-slots.wgsl.ts: within a range, and from one range to another. One
 * invocation copies one vector of four words; `blockVectors` of them are a block.
 */
import { defineKernel, wgslLinearWorkgroup, type UniformType } from '@vramkit/core';

/** Block copies of one dispatch. */
export const COPIES_PER_DISPATCH = 16;
/** Invocations of a workgroup. */
export const COPY_LANES = 64;

const pairIndices = Array.from({ length: COPIES_PER_DISPATCH }, (_, index) => index);

/** `from0, to0, from1, ...`: block ids within their ranges. */
const pairUniforms: Readonly<Record<string, UniformType>> = Object.fromEntries(
  pairIndices.flatMap((index) => [
    [`from${index}`, 'u32'],
    [`to${index}`, 'u32'],
  ]),
);

const uniforms = { count: 'u32', blockVectors: 'u32', ...pairUniforms } as const;

function copySource(source: string, target: string): string {
  const cases = pairIndices
    .map(
      (index) => `    case ${index}u: { return vec2(uniforms.from${index}, uniforms.to${index}); }`,
    )
    .join('\n');
  return /* wgsl */ `
${wgslLinearWorkgroup}
fn pair_at(index: u32) -> vec2<u32> {
  switch index {
${cases}
    default: { return vec2(0u, 0u); }
  }
}
@compute @workgroup_size(${COPY_LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = linear_workgroup(id, groups) * ${COPY_LANES}u + lane;
  let index = i / uniforms.blockVectors;
  if (index >= uniforms.count) { return; }
  let blocks = pair_at(index);
  let element = i % uniforms.blockVectors;
  ${target}[blocks.y * uniforms.blockVectors + element] =
    ${source}[blocks.x * uniforms.blockVectors + element];
}
`;
}

/** Copies within one range; dispatch ceil(count * blockVectors / COPY_LANES). */
export const copyBlocksKernel = defineKernel({
  name: 'copy-blocks',
  bindings: { data: { access: 'read-write', type: 'array<vec4<u32>>' } },
  uniforms,
  source: () => copySource('data', 'data'),
});

/** Copies from one range to another; the grid of {@link copyBlocksKernel}. */
export const copyBlocksAcrossKernel = defineKernel({
  name: 'copy-blocks-across',
  bindings: {
    source: { access: 'read', type: 'array<vec4<u32>>' },
    data: { access: 'read-write', type: 'array<vec4<u32>>' },
  },
  uniforms,
  source: () => copySource('source', 'data'),
});
