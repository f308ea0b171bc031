/**
 * WGSL that reads weights: a step of consecutive elements of one row, as f32.
 *
 * A step is 32 elements where the row length allows, else 16 or 4, so that it fills whole vector
 * loads and whole groups. A kernel loads the words of a step into variables `<row>_0`, `<row>_1`,
 * ... and takes each element as an expression over them.
 *
 * Codes are not shifted into place. A masked word is the code times a power of two, which converts
 * to f32 exactly, and {@link WeightStep.exponent} says which power; whoever multiplies scales the
 * other factor by its inverse, once for many rows. This saves a shift for each code, and a shift by
 * a vector is not a single instruction everywhere. The topmost code of a word would come out
 * negative: flipping its highest bit and adding 2^31 undoes that, exactly as well.
 *
 * Codes of 2 and 3 bits are first spread, eight at a time, into the nibbles of a word, and read
 * from there like 4-bit codes.
 *
 * Compact factors (factor-codec.ts) are two groups a word. Their scale is an f16 whose bits lie one
 * place too high, with the zero point below: one shift and mask gives the scales of both groups.
 */
import { MAX_ZERO } from '../factor-codec.js';
import type { FactorFormat, GroupSize, MatrixFormat, MatrixLayout } from '../matrix-layout.js';

/** How a matrix is stored, as far as kernels are specialised by it. */
export interface StorageParams {
  readonly format: MatrixFormat;
  /** Columns that share a scale, or 0 for dense formats. */
  readonly groupSize: GroupSize;
  /** Elements of a step; see {@link stepElements}. */
  readonly stepElements: number;
  /** How scales and minimums are stored. Default: 'f16'. */
  readonly factors?: FactorFormat;
  /** Whether a row of compact factors ends with a group alone in its word. Default: false. */
  readonly isPadded?: boolean;
}

/** How a matrix is stored, for its kernels. */
export function storageParams(layout: MatrixLayout): StorageParams {
  const { format, groupSize, columns, factors } = layout;
  const storage = { format, groupSize, stepElements: stepElements(columns, groupSize) };
  if (factors === 'f16') return storage;
  return { ...storage, factors, isPadded: (columns / groupSize) % 2 === 1 };
}

/** How a kernel reads one step of a row. */
export interface WeightStep {
  /** Consecutive elements of a step. */
  readonly elements: number;
  /** Vectors of four in a step. */
  readonly quads: number;
  /** WGSL type of one load of codes. */
  readonly loadType: string;
  /** Loads of codes in a step. */
  readonly loads: number;
  /** Groups that a step touches, each with its scale and minimum; 0 for dense formats. */
  readonly groups: number;
  /** Steps that share a group; 1 where a step has a group or more. */
  readonly stepsPerGroup: number;
  /** WGSL type of the scales of a step; a dense kernel declares it and never reads it. */
  readonly scalesType: string;
  /** Whether the scales of a step end with a word of lowest bits. */
  readonly hasLowestPlane: boolean;
  /** Whether codes are first spread into the nibbles of other words. */
  readonly spreads: boolean;
  /** How compact factors are read; absent for pairs of f16. */
  readonly compact?: CompactFactors;
  /** Statements to place before the elements of a quad are used. */
  readonly prepare: (row: string, quad: number) => readonly string[];
  /** The words of elements 8 * `eight` to 8 * `eight` + 7, as expressions; prepared ones. */
  readonly words: (row: string, eight: number) => readonly string[];
  /** Element `index` of the step times two to the power of its exponent, as an f32 expression. */
  readonly element: (row: string, index: number) => string;
  /** The power of two that {@link element} still carries. */
  readonly exponent: (index: number) => number;
}

/** What a kernel knows of compact factors. */
interface CompactFactors {
  /** A zero point in codes, times -1. */
  readonly unit: number;
  /** Whether rows end with a group alone in its word. */
  readonly isPadded: boolean;
}

/** `[0, 1, ..., count - 1]`. */
export const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** Names of the components of a vector. */
export const COMPONENTS = ['x', 'y', 'z', 'w'] as const;

/** Elements of a step of a matrix with that many columns. */
export function stepElements(columns: number, groupSize: number): number {
  if (columns % 32 === 0) return 32;
  return groupSize === 16 || columns % 16 === 0 ? 16 : 4;
}

/** How to read a step of this storage. */
export function weightStep(params: StorageParams): WeightStep {
  const { format, groupSize, stepElements: elements, isPadded = false } = params;
  const bits = BITS[format];
  const isCompact = params.factors === 'compact';
  // The lowest bits of 3-bit codes lie among the scales.
  const words = (elements * (bits === 3 ? 2 : bits)) / 32;
  const width = Math.min(4, words);
  const groups = groupSize === 0 ? 0 : Math.max(1, elements / groupSize);
  const word = (row: string, at: number): string =>
    `${row}_${Math.floor(at / width)}.${COMPONENTS[at % width]}`;
  const wordOf = (row: string, index: number): string =>
    bits < 4 ? `${row}_n${Math.floor(index / 8)}` : word(row, Math.floor((index * bits) / 32));
  return {
    elements,
    quads: elements / 4,
    loadType: `vec${width}<u32>`,
    loads: words / width,
    groups,
    stepsPerGroup: groupSize === 0 ? 1 : Math.max(1, groupSize / elements),
    scalesType: isCompact
      ? compactType(bits, groups)
      : scalesType(bits, groups, groupSize / elements),
    ...(isCompact && { compact: { unit: -(2 ** (bits - 7)), isPadded } }),
    hasLowestPlane: bits === 3,
    spreads: bits < 4,
    prepare: (row, quad) => {
      if (format === 'f16') {
        return [0, 2].map((i) => {
          const index = 4 * quad + i;
          return `let ${row}_h${index} = unpack2x16float(${wordOf(row, index)});`;
        });
      }
      if (bits > 3 || quad % 2 === 1) return [];
      const eight = quad / 2;
      return [`let ${row}_n${eight} = ${nibbles(bits, word(row, eight >> 1), `${row}_p`, eight)};`];
    },
    words: (row, eight) =>
      bits < 4
        ? [`${row}_n${eight}`]
        : range(bits / 4).map((i) => word(row, (eight * bits) / 4 + i)),
    element: (row, index) => elementExpression(format, row, index, wordOf(row, index)),
    exponent: (index) => (groups === 0 ? 0 : bits === 8 ? 8 * (index % 4) : 4 * (index % 8)),
  };
}

const BITS = {
  f32: 32,
  f16: 16,
  bf16: 16,
  affine2: 2,
  affine3: 3,
  affine4: 4,
  affine8: 8,
} as const;

/**
 * Type of the scales of a step. Three bits: one word more, which holds the lowest bits; where
 * groups are longer than a step, words are loaded one by one.
 */
function scalesType(bits: number, groups: number, stepsPerGroup: number): string {
  if (bits !== 3) return groups === 2 ? 'vec2<u32>' : 'u32';
  if (stepsPerGroup > 1) return 'u32';
  return groups === 2 ? 'array<u32, 3>' : 'vec2<u32>';
}

/** The same of compact factors: words one by one, but for a step of two groups and a plane. */
function compactType(bits: number, groups: number): string {
  return bits === 3 && groups === 2 ? 'vec2<u32>' : 'u32';
}

/**
 * Codes 8 * `eight` to 8 * `eight` + 7 of a step, one in each nibble; other bits may be left over.
 */
function nibbles(bits: number, upper: string, lowest: string, eight: number): string {
  if (bits === 2) return eight % 2 === 0 ? upper : `${upper} >> 2u`;
  const spread = `((${upper} ${eight % 2 === 0 ? '<<' : '>>'} 1u) & 0x66666666u)`;
  return `${spread} | (${eight === 0 ? lowest : `(${lowest} >> ${eight}u)`} & 0x11111111u)`;
}

function elementExpression(format: MatrixFormat, row: string, index: number, word: string): string {
  switch (format) {
    case 'f32':
      return `bitcast<f32>(${word})`;
    case 'f16':
      return `${row}_h${index - (index % 2)}.${COMPONENTS[index % 2]}`;
    case 'bf16':
      // A multiplication, because some drivers have no shift of a vector by a constant.
      return `bitcast<f32>(${index % 2 === 0 ? `${word} * 65536u` : `${word} & 0xffff0000u`})`;
    case 'affine2':
      return codeExpression(word, 0x3, 4 * (index % 8), 32);
    case 'affine3':
      return codeExpression(word, 0x7, 4 * (index % 8), 32);
    case 'affine4':
      return codeExpression(word, 0xf, 4 * (index % 8), 28);
    case 'affine8':
      return codeExpression(word, 0xff, 8 * (index % 4), 24);
  }
}

function codeExpression(word: string, mask: number, shift: number, topShift: number): string {
  const masked = `${word} & ${mask * 2 ** shift}u`;
  // Codes that leave the top bit of a word alone have no `topShift` to reach.
  if (shift < topShift) return `f32(bitcast<i32>(${masked}))`;
  return `(f32(bitcast<i32>((${masked}) ^ 0x80000000u)) + 2147483648.0)`;
}

/**
 * Statements that load step `at` (an expression) of a row: codes into `<row>_0`, ..., the factors
 * of each group into `<row>_g0`, ... and lowest bits into `<row>_p`.
 */
export function loadStep(step: WeightStep, row: string, at: string): string[] {
  const codes = range(step.loads).map((load) => {
    const index = step.loads === 1 ? at : `(${at}) * ${step.loads}u + ${load}u`;
    return `let ${row}_${load} = codes[${index}];`;
  });
  if (step.groups === 0) return codes;
  if (step.compact === undefined) return [...codes, ...loadScales(step, row, at)];
  return [...codes, ...loadCompact(step, step.compact, row, at)];
}

/** Loads compact factors; `uniforms.steps` is the steps of a row. */
function loadCompact(step: WeightStep, compact: CompactFactors, row: string, at: string): string[] {
  const { groups, stepsPerGroup, hasLowestPlane } = step;
  const { unit, isPadded } = compact;
  const pair = (scale: string, zero: string): string =>
    `vec2<f32>(${scale}, ${scale} * (${unit.toString()} * f32(${zero})))`;
  const scales = (word: string): string => `unpack2x16float((${word} >> 1u) & 0x7fc07fc0u)`;
  if (groups === 2) {
    const word = hasLowestPlane ? `${row}_s.x` : `${row}_s`;
    return [
      `let ${row}_s = scales[${at}];`,
      `let ${row}_d = ${scales(word)};`,
      `let ${row}_g0 = ${pair(`${row}_d.x`, `${word} & ${MAX_ZERO}u`)};`,
      `let ${row}_g1 = ${pair(`${row}_d.y`, `(${word} >> 16u) & ${MAX_ZERO}u`)};`,
      ...(hasLowestPlane ? [`let ${row}_p = ${row}_s.y;`] : []),
    ];
  }
  // The group in halves of words, with those that rows are filled up with.
  const group = stepsPerGroup === 1 ? `(${at})` : `(${at}) / ${stepsPerGroup}u`;
  const padding = isPadded ? ` + (${at}) / uniforms.steps` : '';
  const within = stepsPerGroup === 1 ? '' : ` - (${at}) % ${stepsPerGroup}u`;
  // A word of factors comes before the lowest bits of its steps.
  const place = hasLowestPlane
    ? `${at} - (${row}_q & 1u) * ${stepsPerGroup}u${within} + (${row}_q >> 1u)`
    : `${row}_q >> 1u`;
  return [
    `let ${row}_q = ${group}${padding};`,
    `let ${row}_s = scales[${place}] >> (16u * (${row}_q & 1u));`,
    `let ${row}_d = ${scales(`${row}_s`)}.x;`,
    `let ${row}_g0 = ${pair(`${row}_d`, `${row}_s & ${MAX_ZERO}u`)};`,
    ...(hasLowestPlane ? [`let ${row}_p = scales[${at} + (${row}_q >> 1u) + 1u];`] : []),
  ];
}

function loadScales(step: WeightStep, row: string, at: string): string[] {
  const { groups, stepsPerGroup, hasLowestPlane } = step;
  const words = groups + (hasLowestPlane ? 1 : 0);
  if (stepsPerGroup > 1) {
    const group = `let ${row}_q = (${at}) / ${stepsPerGroup}u;`;
    const factors = (index: string): string => `let ${row}_g0 = unpack2x16float(scales[${index}]);`;
    if (!hasLowestPlane) return [group, factors(`${row}_q`)];
    // A group is its factors and then a word of lowest bits for each step.
    const lowest = `let ${row}_p = scales[${at} + ${row}_q + 1u];`;
    return [group, factors(`${row}_q * ${stepsPerGroup + 1}u`), lowest];
  }
  const word = (i: number): string => {
    if (words === 1) return `${row}_s`;
    return words === 3 ? `${row}_s[${i}]` : `${row}_s.${COMPONENTS[i]}`;
  };
  const factors = range(groups).map((i) => `let ${row}_g${i} = unpack2x16float(${word(i)});`);
  const lowest = hasLowestPlane ? [`let ${row}_p = ${word(groups)};`] : [];
  return [`let ${row}_s = scales[${at}];`, ...factors, ...lowest];
}

/**
 * A statement that makes the elements 8 * `at` (an expression) to 8 * `at` + 7 of the prepared step
 * `from` those of a step `to` of eight elements. Affine formats only.
 */
export function selectEight(step: WeightStep, from: string, to: string, at: string): string[] {
  const eights = range(step.elements / 8).map((eight) => step.words(from, eight));
  const word = (i: number): string => {
    const words = eights.map((each) => each[i]);
    return `vec${words.length}<u32>(${words.join(', ')})[${at}]`;
  };
  if (step.spreads) return [`let ${to}_n0 = ${word(0)};`];
  return [`let ${to}_0 = vec2<u32>(${word(0)}, ${eights[0]?.length === 2 ? word(1) : '0u'});`];
}

/** Powers of two as a WGSL vector that undoes the exponents of a quad's elements. */
export function quadFactors(step: WeightStep, quad: number): string {
  return `vec4<f32>(${range(4)
    .map((i) => `${2 ** -step.exponent(4 * quad + i)}`)
    .join(', ')})`;
}

/** The values of a quad as a `vec4<f32>` expression, scale and minimum applied. */
export function quadValue(step: WeightStep, row: string, quad: number): string {
  const elements = range(4).map((i) => step.element(row, 4 * quad + i));
  const vector = `vec4<f32>(${elements.join(', ')})`;
  if (step.groups === 0) return vector;
  const group = `${row}_g${Math.floor((quad * step.groups) / step.quads)}`;
  return `${vector} * (${group}.x * ${quadFactors(step, quad)}) + ${group}.y`;
}
