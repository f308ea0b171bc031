/**
 * Converters from GGUF blocks of 256 weights to affine groups of 16 or 32; layouts in
 * `ggml-k-blocks.ts`.
 *
 * Each works on four bytes of codes at a time: a mask and a shift select the field that four
 * neighbouring weights share a position in, which leaves four 8-bit codes, or 16 bits after
 * packing.
 */
import { packFields, type BlockPacker } from './affine-packer.js';
import { sixBitPair, sixBitScale } from './ggml-k-blocks.js';

/** Q2_K. */
export function unpackQ2K(packer: BlockPacker): void {
  const { bytes, codes, halves } = packer;
  for (let block = 0; block < packer.blockCount; block++) {
    const at = block * 42;
    const d = packer.factor(at + 40, block);
    const dmin = packer.factor(at + 41, block);
    for (let group = 0; group < 16; group++) {
      const pair = bytes[2 * at + group] ?? 0;
      const scale = packer.f16(d * (pair & 15), block);
      packer.setGroup(block * 16 + group, scale, packer.f16(-dmin * (pair >> 4), block));
    }
    // Word w of 32 holds weights 8 w to 8 w + 7: 8 bytes of the 32 of its half, at one 2-bit
    // shift.
    for (let word = 0; word < 32; word++) {
      const from = at + 8 + 16 * (word >> 4) + 4 * (word & 3);
      const shift = 2 * ((word >> 2) & 3);
      codes[block * 32 + word] = packFields(halves, from, shift, 0x0303);
    }
  }
}

/** Q3_K. */
export function unpackQ3K(packer: BlockPacker): void {
  const { codes, halves } = packer;
  const view = viewOf(packer);
  for (let block = 0; block < packer.blockCount; block++) {
    const at = block * 55;
    const d = packer.factor(at + 54, block);
    for (let group = 0; group < 16; group++) {
      const product = d * (sixBitScale(view, 2 * at + 96, group) - 32);
      setCentred(packer, { group: block * 16 + group, block, product, power: 2 });
    }
    for (let word = 0; word < 32; word++) {
      const from = at + 16 + 16 * (word >> 4) + 4 * (word & 3);
      const third = at + 4 * (word & 3);
      const shift = 2 * ((word >> 2) & 3);
      const low = packFields(halves, from, shift, 0x0303);
      codes[block * 32 + word] = low | (packFields(halves, third, word >> 2, 0x0101) << 2);
    }
  }
}

/** Q4_K to 4-bit codes, or Q5_K to 8-bit codes where the block has fifth bits. */
export function unpackQ45K(packer: BlockPacker, hasFifthBits: boolean): void {
  const view = viewOf(packer);
  const blockHalves = hasFifthBits ? 88 : 72;
  for (let block = 0; block < packer.blockCount; block++) {
    const at = block * blockHalves;
    const d = packer.factor(at, block);
    const dmin = packer.factor(at + 1, block);
    for (let group = 0; group < 8; group++) {
      const { scale, min } = sixBitPair(view, 2 * at + 4, group);
      const scaleBits = packer.f16(d * scale, block);
      packer.setGroup(block * 8 + group, scaleBits, packer.f16(-dmin * min, block));
    }
    if (hasFifthBits) unpackFiveBits(packer, at, block * 64);
    else unpackFourBits(packer, at + 8, block * 32);
  }
}

function unpackFourBits(packer: BlockPacker, at: number, to: number): void {
  for (let word = 0; word < 32; word++) {
    const from = at + 16 * (word >> 3) + 4 * (word & 3);
    packer.codes[to + word] = packFields(packer.halves, from, word & 4, 0x0f0f);
  }
}

function unpackFiveBits(packer: BlockPacker, at: number, to: number): void {
  for (let word = 0; word < 64; word++) {
    const quad = word & 7;
    const group = word >> 3;
    const low = packer.word(at + 24 + 16 * (group >> 1) + 2 * quad) >>> (4 * (group & 1));
    const fifth = packer.word(at + 8 + 2 * quad) >>> group;
    packer.codes[to + word] = (low & 0x0f0f0f0f) | ((fifth & 0x01010101) << 4);
  }
}

/** Q6_K. */
export function unpackQ6K(packer: BlockPacker): void {
  const { bytes, codes } = packer;
  for (let block = 0; block < packer.blockCount; block++) {
    const at = block * 105;
    const d = packer.factor(at + 104, block);
    for (let group = 0; group < 16; group++) {
      const scale = ((bytes[2 * at + 192 + group] ?? 0) << 24) >> 24;
      setCentred(packer, { group: block * 16 + group, block, product: d * scale, power: 5 });
    }
    for (let word = 0; word < 64; word++) {
      const part = word >> 5;
      const within = word & 31;
      const low = packer.word(at + 32 * part + 2 * (within & 15)) >>> (within & 16 ? 4 : 0);
      const high = packer.word(at + 64 + 16 * part + 2 * (within & 7)) >>> (2 * (within >> 3));
      codes[block * 64 + word] = (low & 0x0f0f0f0f) | ((high & 0x03030303) << 4);
    }
  }
}

/**
 * Stores f16(`product`) as scale and `-2^power` times that as min, so that code `2^power` is 0.
 */
function setCentred(
  packer: BlockPacker,
  options: { group: number; block: number; product: number; power: number },
): void {
  const { group, block, product, power } = options;
  const scale = packer.f16(product, block);
  const min = packer.negativeMultiple(scale, power, block);
  packer.setGroup(group, scale, min);
}

function viewOf(packer: BlockPacker): DataView {
  const { buffer, byteOffset, byteLength } = packer.bytes;
  return new DataView(buffer, byteOffset, byteLength);
}
