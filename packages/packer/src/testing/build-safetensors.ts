/**
 * Builds small safetensors files in memory, for tests of whatever reads them.
 *
 * Tensors are laid out in the order given. `header` replaces the JSON text for tests of wrong ones.
 */

/** One tensor to write. */
export interface BuildSafetensorsTensor {
  readonly name: string;
  readonly type: string;
  /** Extents, slowest first. */
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}

/** Bytes of a safetensors file with the given tensors. */
export function buildSafetensors(
  tensors: readonly BuildSafetensorsTensor[],
  options: { readonly metadata?: Readonly<Record<string, string>>; readonly header?: string } = {},
): Uint8Array {
  let offset = 0;
  const entries = tensors.map(({ name, type, shape, bytes }) => {
    const begin = offset;
    offset += bytes.byteLength;
    return [name, { dtype: type, shape, data_offsets: [begin, offset] }] as const;
  });
  const pairs = options.metadata === undefined ? {} : { __metadata__: options.metadata };
  const text = options.header ?? JSON.stringify({ ...pairs, ...Object.fromEntries(entries) });
  const header = new TextEncoder().encode(text);
  const file = new Uint8Array(8 + header.byteLength + offset);
  new DataView(file.buffer).setBigUint64(0, BigInt(header.byteLength), true);
  file.set(header, 8);
  let at = 8 + header.byteLength;
  for (const { bytes } of tensors) {
    file.set(bytes, at);
    at += bytes.byteLength;
  }
  return file;
}
