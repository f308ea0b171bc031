/**
 * Moves K, V and norms of tokens from slot to slot: `to[i]` receives what `from[i]` holds.
 *
 * No slot may be in both lists: moves run in no order. Kernels come in two kinds, because WebGPU
 * forbids one range to be bound twice where it is written: within a segment (one binding), and from
 * one segment to another (two). Moves whose slots are in other segments are skipped.
 *
 * Shapes: from, to [count]; kv a layer's segment; norms a segment's [slot, perToken]. One
 * invocation moves one vector (K and V) or one norm; vectors run fastest over lanes.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import type { KvShape } from '../kv-layout.js';
import { kvBindingType, wgslKvShape } from './kv-shape.wgsl.js';

/** Invocations of a workgroup. */
export const MOVE_LANES = 64;

const lists = {
  fromSlots: { access: 'read', type: 'array<u32>' },
  toSlots: { access: 'read', type: 'array<u32>' },
} as const;

const segments = {
  count: 'u32',
  fromFirstBlock: 'u32',
  fromBlockCount: 'u32',
  toFirstBlock: 'u32',
  toBlockCount: 'u32',
} as const;

/**
 * Start of `main`: finds move and lane's element of `WIDTH`, and leaves moves of other segments.
 */
const wgslMoveStart = /* wgsl */ `
@compute @workgroup_size(${MOVE_LANES})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
  let i = linear_workgroup(id, groups) * ${MOVE_LANES}u + lane;
  let element = i % WIDTH;
  let index = i / WIDTH;
  if (index >= uniforms.count) { return; }
  let a = fromSlots[index];
  let b = toSlots[index];
  let block_a = a / BLOCK_SIZE - uniforms.fromFirstBlock;
  let block_b = b / BLOCK_SIZE - uniforms.toFirstBlock;
  if (block_a >= uniforms.fromBlockCount || block_b >= uniforms.toBlockCount) { return; }
`;

function kvSource(shape: KvShape, source: string, target: string): string {
  return /* wgsl */ `
${wgslLinearWorkgroup}
${wgslKvShape(shape)}
const WIDTH = 2u * KV_HEADS * HEAD_VECTORS;
fn vector_at(block: u32, offset: u32, element: u32) -> u32 {
  let head = element / HEAD_VECTORS;
  let d = element % HEAD_VECTORS;
  if (head < KV_HEADS) { return key_at(block, head, offset) + d * BLOCK_SIZE; }
  return value_at(block, head - KV_HEADS, offset) + d;
}
${wgslMoveStart}
  ${target}[vector_at(block_b, b % BLOCK_SIZE, element)] =
    ${source}[vector_at(block_a, a % BLOCK_SIZE, element)];
}
`;
}

function normSource(params: NormMoveParams, source: string, target: string): string {
  return /* wgsl */ `
${wgslLinearWorkgroup}
const BLOCK_SIZE = ${params.blockSize}u;
const WIDTH = ${params.perToken}u;
${wgslMoveStart}
  ${target}[(block_b * BLOCK_SIZE + b % BLOCK_SIZE) * WIDTH + element] =
    ${source}[(block_a * BLOCK_SIZE + a % BLOCK_SIZE) * WIDTH + element];
}
`;
}

/** Parameters of the norm moves: `perToken` floats move together. */
export interface NormMoveParams {
  readonly blockSize: number;
  readonly perToken: number;
}

/** K and V within a segment; dispatch ceil(count * kvHeads * headDim / 2 / MOVE_LANES). */
export const moveKvKernel = defineKernel({
  name: 'move-kv',
  bindings: { ...lists, kv: { access: 'read-write', type: kvBindingType } },
  uniforms: segments,
  source: (params: { readonly shape: KvShape }) => kvSource(params.shape, 'kv', 'kv'),
});

/** K and V from one segment to another; the grid of {@link moveKvKernel}. */
export const moveKvAcrossKernel = defineKernel({
  name: 'move-kv-across',
  bindings: {
    ...lists,
    source: { access: 'read', type: kvBindingType },
    kv: { access: 'read-write', type: kvBindingType },
  },
  uniforms: segments,
  source: (params: { readonly shape: KvShape }) => kvSource(params.shape, 'source', 'kv'),
});

/** Norms within a segment; dispatch ceil(count * perToken / MOVE_LANES). */
export const moveNormsKernel = defineKernel({
  name: 'move-norms',
  bindings: { ...lists, norms: { access: 'read-write', type: 'array<f32>' } },
  uniforms: segments,
  source: (params: NormMoveParams) => normSource(params, 'norms', 'norms'),
});

/** Norms from one segment to another; the grid of {@link moveNormsKernel}. */
export const moveNormsAcrossKernel = defineKernel({
  name: 'move-norms-across',
  bindings: {
    ...lists,
    source: { access: 'read', type: 'array<f32>' },
    norms: { access: 'read-write', type: 'array<f32>' },
  },
  uniforms: segments,
  source: (params: NormMoveParams) => normSource(params, 'source', 'norms'),
});
