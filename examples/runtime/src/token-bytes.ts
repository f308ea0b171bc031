/**
 * From tokens to the bytes they stand for, and from bytes to text as they arrive.
 *
 * A token can end in the middle of a character, so text is decoded from bytes, never token by
 * token. Byte-level vocabularies write every byte as one printable character: printable Latin-1
 * bytes as themselves, the others as U+0100 and following, in order. SentencePiece vocabularies
 * write a space as U+2581 and bytes that are in no piece as `<0xXX>`.
 */

/** How a vocabulary spells bytes. */
export type TokenSpelling = 'byte-level' | 'sentencepiece';

const encoder = new TextEncoder();

/** Bytes by the character that stands for them in byte-level vocabularies. */
function byteAlphabet(): Map<string, number> {
  const alphabet = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173);
    alphabet.set(String.fromCharCode(printable ? byte : next++), byte);
  }
  return alphabet;
}

const BYTES_BY_CHARACTER: ReadonlyMap<string, number> = byteAlphabet();

/** The bytes of a token as its vocabulary spells it. */
export function spelledBytes(token: string, spelling: TokenSpelling): Uint8Array {
  if (spelling === 'sentencepiece') {
    const [, digits] = /^<0x([0-9A-Fa-f]{2})>$/.exec(token) ?? [];
    if (digits !== undefined) return Uint8Array.of(Number.parseInt(digits, 16));
    return encoder.encode(token.replaceAll('\u2581', ' '));
  }
  const bytes: number[] = [];
  for (const character of token) {
    const byte = BYTES_BY_CHARACTER.get(character);
    // A character outside of the alphabet is in tokens that were added as plain text.
    if (byte === undefined) bytes.push(...encoder.encode(character));
    else bytes.push(byte);
  }
  return Uint8Array.from(bytes);
}

/** Turns tokens into text as they come; see {@link createTokenDecoder}. */
export interface TokenDecoder {
  /** Text that is complete after `id`; empty in the middle of a character. */
  push(id: number): string;
  /** Text of what is left; an unfinished character becomes U+FFFD. */
  end(): string;
}

/** A decoder over `bytesOf`, which gives no bytes for tokens that are not text. */
export function createTokenDecoder(bytesOf: (id: number) => Uint8Array): TokenDecoder {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  return {
    push: (id) => decoder.decode(bytesOf(id), { stream: true }),
    end: () => decoder.decode(),
  };
}
