/** Sizes as people write them on a command line. */
import { fail } from '@vramkit/core';

/**
 * Bytes of a size such as `1500000`, `512M` or `2GiB`; units are binary.
 * @throws VramError `invalid-argument`.
 */
export function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim());
  if (match === null) fail('invalid-argument', `'${text}' is no size; write 1500000, 512M or 2G`);
  const power = ['', 'k', 'm', 'g', 't'].indexOf((match[2] ?? '').toLowerCase());
  return Math.floor(Number(match[1]) * 1024 ** power);
}
