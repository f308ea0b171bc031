/**
 * Converters from GGUF blocks of 32 weights to affine groups of 32; layouts in `ggml-blocks.ts`.
 *
 * A 16-byte run of nibbles holds weights 0-15 in the low and 16-31 in the high halves. Four
 * bytes at a time, the low nibbles are gathered into 16 bits of a code word, or stay spread as
 * four 8-bit codes.
 */
import { packFields, type BlockPacker } from './affine-packer.js';

/** Q4_0, or Q4_1 where the block stores its own min. */
export function unpackQ4(packer: BlockPacker, hasMin: boolean): void {
  const { codes, halves } = packer;
  const qsHalf = hasMin ? 2 : 1;
  for (let block = 0; block < packer.blockCount; block++) {
    const at = block * (qsHalf + 8);
    const to = block * 4;
    setScale(packer, block, at, hasMin ? undefined : 3);
    for (let word = 0; word < 2; word++) {
      const from = at + qsHalf + 4 * word;
      codes[to + word] = packFields(halves, from, 0, 0x0f0f);
      codes[to + word + 2] = packFields(halves, from, 4, 0x0f0f);
    }
  }
}

/** Q5_0, or Q5_1 where the block stores its own min. */
export function unpackQ5(packer: BlockPacker, hasMin: boolean): void {
  const { codes } = packer;
  const fifthHalf = hasMin ? 2 : 1;
  for (let block = 0; block < packer.blockCount; block++) {
    const at = block * (fifthHalf + 10);
    const to = block * 8;
    setScale(packer, block, at, hasMin ? undefined : 4);
    const fifth = packer.word(at + fifthHalf);
    for (let quad = 0; quad < 4; quad++) {
      const word = packer.word(at + fifthHalf + 2 + 2 * quad);
      codes[to + quad] = (word & 0x0f0f0f0f) | fifthBits(fifth >>> (4 * quad));
      codes[to + quad + 4] = ((word >>> 4) & 0x0f0f0f0f) | fifthBits(fifth >>> (4 * quad + 16));
    }
  }
}

/** Q8_0: signed bytes become unsigned by flipping their top bit. */
export function unpackQ8(packer: BlockPacker): void {
  const { codes } = packer;
  for (let block = 0; block < packer.blockCount; block++) {
    const at = block * 17;
    setScale(packer, block, at, 7);
    for (let quad = 0; quad < 8; quad++) {
      codes[block * 8 + quad] = packer.word(at + 1 + 2 * quad) ^ 0x80808080;
    }
  }
}

/**
 * Stores the factor at `at` as scale, and `-2^power` times it, or the factor after it, as min.
 */
function setScale(packer: BlockPacker, block: number, at: number, power: number | undefined): void {
  const scale = packer.factorBits(at, block);
  const min =
    power === undefined
      ? packer.factorBits(at + 1, block)
      : packer.negativeMultiple(scale, power, block);
  packer.setGroup(block, scale, min);
}

/** Spreads four bits, lowest first, to bit 4 of four bytes. */
function fifthBits(bits: number): number {
  return (((bits & 15) * 0x00204081) & 0x01010101) << 4;
}
