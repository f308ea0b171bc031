/**
 * Rounds weights to nearest on the device and packs them, with the bytes that the CPU gives.
 *
 * One invocation packs one unit of a row, so that it writes whole words: a group, or two where
 * factors are compact and where codes of groups of 16 have fewer than four bits. The last unit of a
 * row may have one group of the two. It reads its weights twice, for the range and for the codes.
 *
 * Bindings: `values` [rows, columns] f32 as bit patterns, from element `valueBase` on; `codes` and
 * `scales` rows of `MatrixLayout`, from row `firstRow` on; `problems` [2]: weights that are not
 * finite, and groups whose scale or minimum is above the f16 range (whose words mean nothing).
 * Grid: one invocation per unit, linear over rows.
 *
 * Exactness: WGSL promises neither a correctly rounded division nor subnormal numbers, so scales,
 * zero points and codes are quotients of integers, rounded to nearest, ties to even, with the
 * remainder at hand. Only `value - minimum` and the width of a range are f32 arithmetic: a single
 * subtraction, correctly rounded; where it is subnormal its quotient rounds to zero anyway.
 *
 * Twin: pack-groups.cpu.ts, which is `rtn`. Conventions: rtn.ts.
 */
import { defineKernel, wgslLinearWorkgroup } from '@vramkit/core';
import { MAX_ZERO } from '../factor-codec.js';
import type { CodeBits, FactorFormat, GroupSize } from '../matrix-layout.js';
import { spareCodes, type RtnConvention } from '../quantizers/rtn.js';

/** Parameters of {@link packGroupsKernel}. */
export interface PackGroupsParams {
  readonly bits: CodeBits;
  readonly groupSize: GroupSize;
  readonly factors: FactorFormat;
  readonly convention: RtnConvention;
}

/** Invocations of a workgroup. */
export const PACK_WORKGROUP_SIZE = 64;

/** Columns that one invocation packs. */
export function packUnitColumns({ bits, groupSize, factors }: PackGroupsParams): number {
  const shared = factors === 'compact' ? 2 * groupSize : groupSize;
  return bits < 4 ? Math.max(32, shared) : shared;
}

/** Numbers as mantissa and exponent, and quotients of them rounded to nearest even. */
const exactArithmetic = /* wgsl */ `
struct Scaled { mantissa: u32, exponent: i32 }

// The magnitude of nonzero f32 bits: a mantissa of 24 bits times two to the exponent.
fn split_f32(bits: u32) -> Scaled {
  let magnitude = bits & 0x7fffffffu;
  let field = magnitude >> 23u;
  if (field > 0u) { return Scaled((magnitude & 0x7fffffu) | 0x800000u, i32(field) - 150); }
  let shift = countLeadingZeros(magnitude) - 8u;
  return Scaled(magnitude << shift, -149 - i32(shift));
}

// The magnitude of nonzero f16 bits: a mantissa of 11 bits times two to the exponent.
fn split_f16(bits: u32) -> Scaled {
  let magnitude = bits & 0x7fffu;
  let field = magnitude >> 10u;
  if (field > 0u) { return Scaled((magnitude & 0x3ffu) | 0x400u, i32(field) - 25); }
  let shift = countLeadingZeros(magnitude) - 21u;
  return Scaled(magnitude << shift, -24 - i32(shift));
}

// f16 bits nearest to number * 2^exponent, without the last "dropped" bits, which are zero; "more"
// says that the number goes on behind its last bit. At least the smallest; 0x7c00 above the range.
fn round_to(number: u32, exponent: i32, more: bool, dropped: i32) -> u32 {
  let length = 32 - i32(countLeadingZeros(number));
  let shift = max(length - 11, -24 - exponent) + dropped;
  if (shift > 31) { return 1u << u32(dropped); }
  var kept = number;
  if (shift <= 0) {
    kept = number << u32(-shift);
  } else {
    let half = 1u << u32(shift - 1);
    let rest = number & (2u * half - 1u);
    kept = number >> u32(shift);
    if (rest > half || (rest == half && (more || (kept & 1u) == 1u))) { kept += 1u; }
  }
  let bits = (u32(exponent + shift + 24 - dropped) << 10u) + (kept << u32(dropped));
  return clamp(bits, 1u << u32(dropped), 0x7c00u);
}

fn round_f16(number: u32, exponent: i32, more: bool) -> u32 {
  return round_to(number, exponent, more, 0);
}

// The magnitude of nonzero f32 bits over a divisor below 256, rounded as round_to does.
fn quotient_f16(bits: u32, divisor: u32, dropped: i32) -> u32 {
  let number = split_f32(bits);
  let wide = number.mantissa << 8u;
  return round_to(wide / divisor, number.exponent - 8, wide % divisor != 0u, dropped);
}

// The magnitude of f32 bits over that of f16 bits times 2^-power, to the nearest integer, at most
// "most".
fn quotient(bits: u32, scale: u32, power: i32, most: u32) -> u32 {
  if ((bits & 0x7fffffffu) == 0u) { return 0u; }
  let number = split_f32(bits);
  let divisor = split_f16(scale);
  let shift = divisor.exponent - power - number.exponent;
  if (shift > 14) { return 0u; }
  if (shift < 4) { return most; }
  let whole = divisor.mantissa << u32(shift);
  let quotient = number.mantissa / whole;
  let twice = 2u * (number.mantissa - quotient * whole);
  let up = twice > whole || (twice == whole && (quotient & 1u) == 1u);
  return min(most, quotient + select(0u, 1u, up));
}

fn quotient_code(bits: u32, scale: u32, most: u32) -> u32 {
  return quotient(bits, scale, 0, most);
}

// A multiple of f16 bits as f16 bits, with their sign turned.
fn minus_multiple(scale: u32, count: u32) -> u32 {
  if (count == 0u) { return 0u; }
  let number = split_f16(scale);
  return round_f16(number.mantissa * count, number.exponent, false) | ((scale ^ 0x8000u) & 0x8000u);
}

// f16 bits as f32 bits; subnormal ones become normal.
fn widen_f16(bits: u32) -> u32 {
  if ((bits & 0x7fffu) == 0u) { return 0u; }
  let number = split_f16(bits);
  let field = u32(number.exponent + 137) << 23u;
  return ((bits & 0x8000u) << 16u) | field | ((number.mantissa & 0x3ffu) << 13u);
}

// The code of f32 bits in a group with these factors.
fn nearest_code(bits: u32, factors: u32, most: u32) -> u32 {
  let scale = scale_of(factors);
  if (scale == 0u) { return 0u; }
  let difference = bitcast<u32>(bitcast<f32>(bits) - minimum_of(factors));
  let isNegative = ((difference >> 31u) ^ (scale >> 15u)) == 1u;
  return select(quotient_code(difference, scale, most), 0u, isNegative);
}
`;

/** Functions that read factors: scales as f16 bits, minimums as numbers, both exact. */
function readFactors({ bits, factors }: PackGroupsParams): string {
  if (factors === 'f16') {
    return /* wgsl */ `
fn scale_of(factors: u32) -> u32 { return factors & 0xffffu; }
fn minimum_of(factors: u32) -> f32 { return bitcast<f32>(widen_f16(factors >> 16u)); }
`;
  }
  return /* wgsl */ `
fn scale_of(factors: u32) -> u32 { return (factors >> 7u) << 6u; }
fn minimum_of(factors: u32) -> f32 {
  let zero = factors & ${MAX_ZERO}u;
  if (zero == 0u) { return 0.0; }
  let scale = split_f16(scale_of(factors));
  let unit = bitcast<f32>(u32(scale.exponent + ${bits + 120}) << 23u);
  return -f32(scale.mantissa * zero) * unit;
}
`;
}

/** Statements that set `scale` and `zero` from the extremes of a group, for compact factors. */
function compactFactors({ bits, convention }: PackGroupsParams): string {
  const spare = spareCodes('compact', bits);
  const side = 2 ** (bits - 1) - (convention === 'symmetric-restricted' ? 1 : 0);
  // Zero points of 8 bits are even: half of an odd one rounds to the even half.
  const below = bits === 8 ? 64 : 64 - 2 ** (7 - bits);
  if (convention === 'asymmetric') {
    return /* wgsl */ `
    if ((highest | lowest) != 0u) {
      let width = bitcast<u32>(bitcast<f32>(highest) + bitcast<f32>(lowest));
      scale = quotient_f16(max(width, 1u), ${2 ** bits - 1 - spare}u, 6);
      zero = quotient(lowest, scale, ${7 - bits}, ${MAX_ZERO}u);
    }`;
  }
  const zero =
    convention === 'symmetric-full' ? `select(64u, ${below}u, extreme < 0x80000000u)` : `${below}u`;
  return /* wgsl */ `
    if ((extreme & 0x7fffffffu) != 0u) {
      scale = quotient_f16(extreme, ${side - spare / 2}u, 6);
      zero = ${zero};
    }`;
}

/** Statements that set `scale` and `minimum` from the extremes of a group, for pairs of f16. */
function pairFactors({ bits, convention }: PackGroupsParams): string {
  const middle = 2 ** (bits - 1);
  switch (convention) {
    case 'asymmetric':
      return /* wgsl */ `
    if ((highest | lowest) != 0u) {
      let width = bitcast<u32>(bitcast<f32>(highest) + bitcast<f32>(lowest));
      scale = quotient_f16(max(width, 1u), ${2 ** bits - 1}u, 0);
      minimum = minus_multiple(scale, quotient_code(lowest, scale, ${2 ** bits - 1}u));
    }`;
    case 'symmetric-full':
      return /* wgsl */ `
    if ((extreme & 0x7fffffffu) != 0u) {
      scale = quotient_f16(extreme, ${middle}u, 0) | (((extreme >> 16u) & 0x8000u) ^ 0x8000u);
      minimum = minus_multiple(scale, ${middle}u);
    }`;
    case 'symmetric-restricted':
      return /* wgsl */ `
    if ((extreme & 0x7fffffffu) != 0u) {
      scale = quotient_f16(extreme, ${middle - 1}u, 0);
      minimum = minus_multiple(scale, ${middle - 1}u);
    }`;
  }
}

/** Statements that write the words of a unit. */
function packWords(params: PackGroupsParams, count: string, most: number): string {
  const { bits, groupSize, factors } = params;
  const code = (index: string): string =>
    `nearest_code(values[first + ${index}], words[(${index}) / ${groupSize}u], ${most}u)`;
  if (bits > 3) {
    const perWord = 32 / bits;
    return /* wgsl */ `
  for (var w = 0u; w < ${count} / ${perWord}u; w++) {
    var word = 0u;
    for (var i = 0u; i < ${perWord}u; i++) {
      word |= ${code(`w * ${perWord}u + i`)} << (${bits}u * i);
    }
    codes[codeRow + column / ${perWord}u + w] = word;
  }`;
  }
  const pairLowest =
    groupSize === 16 ? '3u * step + 2u' : `step + 1u + (column + w * 32u) / ${groupSize}u`;
  const compactLowest = `step + 1u + column / ${2 * groupSize}u`;
  const lowest = factors === 'compact' ? compactLowest : pairLowest;
  return /* wgsl */ `
  for (var w = 0u; w < ${count} / 32u; w++) {
    var upper = array<u32, 2>();
    var low = 0u;
    for (var i = 0u; i < 32u; i++) {
      let code = ${code('w * 32u + i')};
      let place = 4u * (i & 7u);
      upper[i >> 4u] |= (code >> ${bits - 2}u) << (place + 2u * ((i >> 3u) & 1u));
      low |= (code & 1u) << (place + (i >> 3u));
    }
    codes[codeRow + column / 16u + 2u * w] = upper[0];
    codes[codeRow + column / 16u + 2u * w + 1u] = upper[1];
    let step = column / 32u + w;
    ${bits === 3 ? `scales[scaleRow + ${lowest}] = low;` : ''}
  }`;
}

function source(params: PackGroupsParams): string {
  const { bits, groupSize, convention, factors } = params;
  const isCompact = factors === 'compact';
  const unit = packUnitColumns(params);
  // Only two groups that share a word can be cut by the end of a row.
  const count = isCompact ? 'count' : `${unit}u`;
  const most = 2 ** bits - (convention === 'symmetric-restricted' ? 2 : 1);
  const factorWord =
    bits !== 3
      ? 'group'
      : groupSize === 16
        ? '3u * (group >> 1u) + (group & 1u)'
        : `group * ${1 + groupSize / 32}u`;
  const compactWord = bits === 3 ? `${1 + unit / 32}u * (column / ${unit}u)` : `column / ${unit}u`;
  return /* wgsl */ `
${wgslLinearWorkgroup}
${readFactors(params)}
${exactArithmetic}
@compute @workgroup_size(${PACK_WORKGROUP_SIZE})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
  let index = linear_workgroup(id, groups) * ${PACK_WORKGROUP_SIZE}u + local;
  let units = (uniforms.columns + ${unit - 1}u) / ${unit}u;
  let row = index / units;
  if (row >= uniforms.rows) { return; }
  let column = (index % units) * ${unit}u;
  let first = uniforms.valueBase + row * uniforms.columns + column;
  let codeRow = (uniforms.firstRow + row) * uniforms.codeWords;
  let scaleRow = (uniforms.firstRow + row) * uniforms.scaleWords;
  var words = array<u32, ${unit / groupSize}>();
  ${isCompact ? `let count = min(${unit}u, uniforms.columns - column);` : ''}
  for (var g = 0u; g < ${count} / ${groupSize}u; g++) {
    var highest = 0u;
    var lowest = 0u;
    var extreme = 0u;
    for (var i = 0u; i < ${groupSize}u; i++) {
      let bits = values[first + g * ${groupSize}u + i];
      let magnitude = bits & 0x7fffffffu;
      if (magnitude >= 0x7f800000u) { atomicAdd(&problems[0], 1u); }
      if (bits == magnitude) { highest = max(highest, magnitude); }
      else { lowest = max(lowest, magnitude); }
      if (magnitude > (extreme & 0x7fffffffu)) { extreme = bits; }
    }
    var scale = 0u;
${
  isCompact
    ? /* wgsl */ `
    var zero = 0u;
    ${compactFactors(params)}
    if (scale >= 0x7c00u) { atomicAdd(&problems[1], 1u); }
    words[g] = (scale << 1u) | zero;
  }
  scales[scaleRow + ${compactWord}] = words[0] | (words[1] << 16u);`
    : /* wgsl */ `
    var minimum = 0u;
    ${pairFactors(params)}
    if (max(scale & 0x7fffu, minimum & 0x7fffu) >= 0x7c00u) { atomicAdd(&problems[1], 1u); }
    words[g] = scale | (minimum << 16u);
    let group = column / ${groupSize}u + g;
    scales[scaleRow + ${factorWord}] = words[g];
  }`
}
${packWords(params, count, most)}
}
`;
}

/** See the head of this file. */
export const packGroupsKernel = defineKernel({
  name: 'pack-groups',
  bindings: {
    values: { access: 'read', type: 'array<u32>' },
    codes: { access: 'read-write', type: 'array<u32>' },
    scales: { access: 'read-write', type: 'array<u32>' },
    problems: { access: 'read-write', type: 'array<atomic<u32>>' },
  },
  uniforms: {
    rows: 'u32',
    columns: 'u32',
    valueBase: 'u32',
    firstRow: 'u32',
    codeWords: 'u32',
    scaleWords: 'u32',
  },
  source,
});
