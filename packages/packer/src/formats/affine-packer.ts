/**
 * What the block converters share: the block bytes as 16-bit words, the arrays they fill, f16
 * arithmetic on factors, and the errors that name the place of a bad factor.
 *
 * Every block size of GGUF is even, so 16-bit words are aligned in all of them, and a 32-bit
 * word of codes is two of those. Rows are whole blocks, so blocks, groups and words are simply
 * consecutive.
 */
import { f16ToF32, f32ToF16, fail } from '@vramkit/core';
import { ggmlBlock, type GgmlType } from './ggml-types.js';

const INFINITY_F16 = 0x7c00;

/** Input and output of one conversion. */
export class BlockPacker {
  /** The blocks as little-endian 16-bit words. */
  readonly halves: Uint16Array;
  /** The blocks as bytes. */
  readonly bytes: Uint8Array;
  /** Number of blocks. */
  readonly blockCount: number;
  /** Words of codes to fill. */
  readonly codes: Uint32Array;
  /** Pairs of scale and min to fill. */
  readonly scales: Uint32Array;
  readonly #type: GgmlType;
  readonly #columns: number;
  readonly #float = new Float32Array(1);
  readonly #floatBits = new Uint32Array(this.#float.buffer);

  constructor(
    type: GgmlType,
    bytes: Uint8Array,
    target: { columns: number; codes: Uint32Array; scales: Uint32Array },
  ) {
    const aligned = bytes.byteOffset % 2 === 0 ? bytes : new Uint8Array(bytes);
    this.#type = type;
    this.#columns = target.columns;
    this.bytes = aligned;
    this.halves = new Uint16Array(aligned.buffer, aligned.byteOffset, aligned.byteLength / 2);
    this.blockCount = bytes.byteLength / ggmlBlock(type).bytes;
    this.codes = target.codes;
    this.scales = target.scales;
  }

  /** 32 bits of the block data from 16-bit word `at`. */
  word(at: number): number {
    return (this.halves[at] ?? 0) | ((this.halves[at + 1] ?? 0) << 16);
  }

  /**
   * The bits of the f16 factor at 16-bit word `at` of block `block`.
   * @throws VramError `corrupt-data` where it is NaN or infinite.
   */
  factorBits(at: number, block: number): number {
    const bits = this.halves[at] ?? 0;
    if ((bits & INFINITY_F16) === INFINITY_F16) this.#failAt('corrupt-data', 'factor', bits, block);
    return bits;
  }

  /** The value of {@link factorBits}. */
  factor(at: number, block: number): number {
    return f16ToF32(this.factorBits(at, block));
  }

  /**
   * f16 bits of `value`, which belongs to block `block`.
   * @throws VramError `unsupported` where it is above the f16 range.
   */
  f16(value: number, block: number): number {
    this.#float[0] = value;
    const word = this.#floatBits[0] ?? 0;
    const magnitude = word & 0x7fffffff;
    if (magnitude >= 0x38800000 && magnitude < 0x477ff000) {
      // Normal in f16, nearly always: rounds to nearest, ties to even.
      const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
      return ((word >>> 16) & 0x8000) | ((rounded - 0x38000000) >>> 13);
    }
    const bits = f32ToF16(value);
    if ((bits & INFINITY_F16) === INFINITY_F16) this.#failAt('unsupported', 'scale', value, block);
    return bits;
  }

  /**
   * f16 bits of `-2^power` times the f16 `bits`, exact below the range's end; throws as {@link
   * f16}.
   */
  negativeMultiple(bits: number, power: number, block: number): number {
    const exponent = (bits >>> 10) & 31;
    if (exponent > 0 && exponent + power < 31) return (bits ^ 0x8000) + (power << 10);
    return this.f16(-(2 ** power) * f16ToF32(bits), block);
  }

  /** Stores scale and min, as f16 bits, of one group. */
  setGroup(group: number, scale: number, min: number): void {
    this.scales[group] = scale | (min << 16);
  }

  #failAt(code: 'corrupt-data' | 'unsupported', what: string, value: number, block: number): never {
    const weight = block * ggmlBlock(this.#type).weights;
    const row = Math.floor(weight / this.#columns);
    const column = weight % this.#columns;
    const problem = code === 'corrupt-data' ? 'is not finite' : 'is above the f16 range';
    return fail(code, `${what} ${value} of ${this.#type} ${problem}, row ${row} column ${column}`, {
      type: this.#type,
      row,
      column,
    });
  }
}

/**
 * Packs one 4-bit field out of each of eight bytes into a word, in byte order. The bytes are the
 * four 16-bit words from `at`; the field starts at bit `shift` of each byte and `mask` is 0x0303
 * or 0x0f0f.
 *
 * 16 bits at a time, because V8 keeps such values unboxed even where it does not inline.
 */
export function packFields(halves: Uint16Array, at: number, shift: number, mask: number): number {
  const a = ((halves[at] ?? 0) >>> shift) & mask;
  const b = ((halves[at + 1] ?? 0) >>> shift) & mask;
  const c = ((halves[at + 2] ?? 0) >>> shift) & mask;
  const d = ((halves[at + 3] ?? 0) >>> shift) & mask;
  const low = ((a | (a >>> 4)) & 0xff) | (((b | (b >>> 4)) & 0xff) << 8);
  const high = ((c | (c >>> 4)) & 0xff) | (((d | (d >>> 4)) & 0xff) << 8);
  return low | (high << 16);
}
