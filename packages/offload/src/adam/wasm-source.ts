/**
 * The CPU's kernels as WebAssembly text: 128-bit SIMD over one shared memory.
 *
 * Each function takes byte addresses, then an element count, then scalars. Counts are multiples of
 * 16: arrays are padded to 256 bytes, so there are no scalar tails, and what is done to the padding
 * is never read. No operation is fused or reordered: each lane rounds as IEEE f32 says, so results
 * do not depend on how a range is cut into chunks or on how many threads work on it.
 *
 * | function    | does                                                 | addresses        |
 * | ----------- | ---------------------------------------------------- | ---------------- |
 * | adam        | adam.ts, from p, m, v to p', m', v' (may be the same) | p m v g p' m' v' |
 * | sum_squares | gradient.wgsl.ts, one partial sum per granule        | g partials       |
 * | narrow_bf16 | f32 to bf16, ties to even                            | source result    |
 * | narrow_f16  | f32 to f16, ties to even                             | source result    |
 * | add_f32     | g + x, or x where the mask is 0                      | x g              |
 * | add_bf16    | the same with widened x                              | x g              |
 * | add_f16     | the same with widened x                              | x g              |
 *
 * wasm-bytes.test.ts assembles this text with wabt and writes wasm-bytes.ts. Text and not a
 * compiled language: the whole is one page, and the assembler is 6 MB where a compiler is 100.
 */
import { ADAM_STEP_NAMES } from './adam.js';

const repeat = (count: number, text: (index: number) => string): string =>
  Array.from({ length: count }, (_, index) => text(index)).join('\n');

const local = (name: string): string => `(local.get $${name})`;

/** A loop over `count` elements, `per` at a time, that moves the named addresses by bytes. */
function loop(per: number, moves: Readonly<Record<string, number>>, body: string): string {
  const moved = Object.entries(moves)
    .map(([name, bytes]) => `(local.set $${name} (i32.add ${local(name)} (i32.const ${bytes})))`)
    .join('\n');
  return `(block $end (loop $next
(br_if $end (i32.le_s ${local('count')} (i32.const 0)))
${body}
${moved}
(local.set $count (i32.sub ${local('count')} (i32.const ${per})))
(br $next)))`;
}

function adam(): string {
  const splat = ADAM_STEP_NAMES.map(
    (name) => `(local.set $${name}4 (f32x4.splat ${local(name)}))`,
  ).join('\n');
  const quad = (index: number): string => {
    const at = `offset=${16 * index}`;
    return `(local.set $x (v128.load ${at} ${local('p')}))
(local.set $y (f32x4.add
  (f32x4.mul (v128.load ${at} ${local('g')}) ${local('gradientScale4')})
  (f32x4.mul ${local('l24')} ${local('x')})))
(local.set $a (f32x4.add
  (f32x4.mul ${local('beta14')} (v128.load ${at} ${local('m')}))
  (f32x4.mul ${local('rest14')} ${local('y')})))
(local.set $b (f32x4.add
  (f32x4.mul ${local('beta24')} (v128.load ${at} ${local('v')}))
  (f32x4.mul (f32x4.mul ${local('rest24')} ${local('y')}) ${local('y')})))
(v128.store ${at} ${local('mOut')} ${local('a')})
(v128.store ${at} ${local('vOut')} ${local('b')})
(v128.store ${at} ${local('pOut')} (f32x4.sub
  (f32x4.mul ${local('x')} ${local('decay4')})
  (f32x4.mul ${local('stepSize4')} (f32x4.div ${local('a')} (f32x4.add
    (f32x4.mul (f32x4.sqrt ${local('b')}) ${local('rootScale4')}) ${local('epsilon4')})))))`;
  };
  return `(func (export "adam")
(param $p i32) (param $m i32) (param $v i32) (param $g i32)
(param $pOut i32) (param $mOut i32) (param $vOut i32) (param $count i32)
${ADAM_STEP_NAMES.map((name) => `(param $${name} f32)`).join(' ')}
(local $x v128) (local $y v128) (local $a v128) (local $b v128)
${ADAM_STEP_NAMES.map((name) => `(local $${name}4 v128)`).join(' ')}
${splat}
${loop(16, { p: 64, m: 64, v: 64, g: 64, pOut: 64, mOut: 64, vOut: 64 }, repeat(4, quad))})`;
}

/** One granule at a time: four accumulators, then their sum, then its lanes. */
function sumSquares(): string {
  const largest =
    '(v128.const f32x4 0x1.fffffep+127 0x1.fffffep+127 0x1.fffffep+127 0x1.fffffep+127)';
  const square = (index: number): string =>
    `(local.set $x (v128.load offset=${16 * index} ${local('g')}))
(local.set $s${index} (f32x4.add ${local(`s${index}`)}
  (f32x4.pmin ${largest} (f32x4.mul ${local('x')} ${local('x')}))))`;
  const zero = '(v128.const f32x4 0 0 0 0)';
  const lane = (index: number): string => `(f32x4.extract_lane ${index} ${local('x')})`;
  return `(func (export "sum_squares") (param $g i32) (param $result i32) (param $count i32)
(local $x v128) (local $s0 v128) (local $s1 v128) (local $s2 v128) (local $s3 v128)
(local $rest i32)
(local.set $rest ${local('count')})
(block $done (loop $granule
(br_if $done (i32.le_s ${local('rest')} (i32.const 0)))
(local.set $count (select (i32.const 1024) ${local('rest')}
  (i32.gt_s ${local('rest')} (i32.const 1024))))
(local.set $rest (i32.sub ${local('rest')} ${local('count')}))
${repeat(4, (index) => `(local.set $s${index} ${zero})`)}
${loop(16, { g: 64 }, repeat(4, square))}
(local.set $x (f32x4.add (f32x4.add ${local('s0')} ${local('s1')})
  (f32x4.add ${local('s2')} ${local('s3')})))
(f32.store ${local('result')}
  (f32.add (f32.add ${lane(0)} ${lane(1)}) (f32.add ${lane(2)} ${lane(3)})))
(local.set $result (i32.add ${local('result')} (i32.const 4)))
(br $granule))))`;
}

const words = (value: string): string => `(v128.const i32x4 ${`${value} `.repeat(4)})`;

/** A function from f32 to 16 bits; `expression` takes lanes of bits in $x and may use $m. */
function narrow(name: string, expression: string): string {
  const half = (offset: number, into: string): string =>
    `(local.set $x (v128.load offset=${offset} ${local('source')}))
(local.set $m (v128.and ${local('x')} ${words('0x7fffffff')}))
(local.set $${into} ${expression})`;
  return `(func (export "${name}") (param $source i32) (param $result i32) (param $count i32)
(local $x v128) (local $m v128) (local $low v128) (local $high v128)
${loop(
  8,
  { source: 32, result: 16 },
  `${half(0, 'low')}
${half(16, 'high')}
(v128.store ${local('result')} (i16x8.narrow_i32x4_u ${local('low')} ${local('high')}))`,
)})`;
}

const shiftRight = (value: string, bits: number): string =>
  `(i32x4.shr_u ${value} (i32.const ${bits}))`;
const isNan = `(i32x4.gt_s ${local('m')} ${words('0x7f800000')})`;

const NARROW_BF16 = `(v128.bitselect ${words('0x7fc0')}
  ${shiftRight(
    `(i32x4.add (i32x4.add ${local('x')} ${words('0x7fff')})
      (v128.and ${shiftRight(local('x'), 16)} ${words('1')}))`,
    16,
  )}
  ${isNan})`;

const NARROW_F16 = `(v128.or
  (v128.and ${shiftRight(local('x'), 16)} ${words('0x8000')})
  (v128.bitselect ${words('0x7e00')}
    (v128.bitselect ${words('0x7c00')}
      (v128.bitselect
        (i32x4.sub (f32x4.add ${local('m')} (f32x4.splat (f32.const 0.5))) ${words('0x3f000000')})
        ${shiftRight(
          `(i32x4.sub (i32x4.add (i32x4.add ${local('m')} ${words('0xfff')})
            (v128.and ${shiftRight(local('m'), 13)} ${words('1')})) ${words('0x38000000')})`,
          13,
        )}
        (i32x4.lt_s ${local('m')} ${words('0x38800000')}))
      (i32x4.ge_s ${local('m')} ${words('0x477ff000')}))
    ${isNan}))`;

/** A function that adds eight elements at a time; `load` gives four of them as f32. */
function add(name: string, bytes: number, load: (index: number) => string): string {
  const quad = (index: number): string =>
    `(local.set $x ${load(index)})
(v128.store offset=${16 * index} ${local('g')} (v128.bitselect
  (f32x4.add ${local('x')} (v128.load offset=${16 * index} ${local('g')}))
  ${local('x')} ${local('mask4')}))`;
  return `(func (export "${name}")
(param $source i32) (param $g i32) (param $count i32) (param $mask i32)
(local $x v128) (local $mask4 v128)
(local.set $mask4 (i32x4.splat ${local('mask')}))
${loop(8, { source: 8 * bytes, g: 32 }, repeat(2, quad))})`;
}

const wide = (index: number): string => `(v128.load16x4_u offset=${8 * index} ${local('source')})`;

/** Exponents move from bias 15 to 127 by a multiplication, which subnormals survive. */
const widenF16 = (index: number): string => `(v128.or
  (i32x4.shl (v128.and ${wide(index)} ${words('0x8000')}) (i32.const 16))
  (v128.or
    (f32x4.mul
      (i32x4.shl (v128.and ${wide(index)} ${words('0x7fff')}) (i32.const 13))
      (f32x4.splat (f32.const 0x1p+112)))
    (v128.and ${words('0x7f800000')}
      (i32x4.ge_s (v128.and ${wide(index)} ${words('0x7fff')}) ${words('0x7c00')}))))`;

/** The text of the module. */
export function wasmSource(): string {
  return `(module
(import "env" "memory" (memory 1 65536 shared))
${adam()}
${sumSquares()}
${narrow('narrow_bf16', NARROW_BF16)}
${narrow('narrow_f16', NARROW_F16)}
${add('add_f32', 4, (index) => `(v128.load offset=${16 * index} ${local('source')})`)}
${add('add_bf16', 2, (index) => `(i32x4.shl ${wide(index)} (i32.const 16))`)}
${add('add_f16', 2, widenF16)})
`;
}
