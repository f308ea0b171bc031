/**
 * Where the tensors of a packed file lie: a safetensors file that any reader of the format opens.
 *
 *     header length u64 | header, padded with blanks | tensors, each from a multiple of 256 B on
 *     a packed tensor `w` is two: `w.codes` and `w.scales`, U32, [rows, words of a row]
 *     any other is stored as it is; gaps are tensors `vramkit.padding.N`, since holes are forbidden
 *     __metadata__["vramkit.packed"]: the manifest, JSON text
 *
 * A section starts where a device can bind it and where a disk can read it, so an expert is
 * uploaded without parsing. Sizes follow from the plan alone: that makes a dry run exact, and lets
 * the header be written last, over a gap of its length, because checksums have a fixed length.
 */
import { assertArgument, fail } from '@vramkit/core';
import {
  matrixLayout,
  type AffineMatrixFormat,
  type FactorFormat,
  type MatrixLayout,
} from '../matrix-layout.js';
import type { DenseType } from './dense.js';

/** Every tensor of a packed file starts at a multiple of this, in bytes. */
export const PACKED_ALIGNMENT = 256;
/**
 * Versions of the manifest: 2 where a tensor has compact factors, else 1, which is the same without
 * them. Readers of version 1 alone refuse what they would misread.
 */
export const MANIFEST_VERSIONS = { plain: 1, compact: 2 } as const;
/** Key of the manifest in the metadata of a safetensors file. */
export const MANIFEST_KEY = 'vramkit.packed';
const PADDING_PREFIX = 'vramkit.padding.';
const NO_CHECKSUM = '0'.repeat(64);
const MAX_TENSORS = 1 << 17;

/** How a tensor is stored. */
export type PackedStorage =
  | {
      readonly format: AffineMatrixFormat;
      readonly groupSize: number;
      /** How scales and minimums are stored. Default: 'f16'. */
      readonly factors?: FactorFormat;
      /** Name of the quantizer, for people. */
      readonly quantizer: string;
    }
  | { readonly format: DenseType };

/** A tensor of a packed file. */
export interface PackedTensor {
  readonly name: string;
  /** Extents, slowest first; a packed tensor has two. */
  readonly shape: readonly number[];
  readonly storage: PackedStorage;
}

/** A part of a packed file: codes, scales or a dense tensor. */
export interface PackedSection {
  /** Name as safetensors has it. */
  readonly name: string;
  readonly type: 'U32' | DenseType;
  readonly shape: readonly number[];
  /** From the first data byte on. */
  readonly begin: number;
  readonly end: number;
}

/** A tensor and where its sections are. */
export interface PlacedTensor extends PackedTensor {
  /** Codes and scales, or the dense elements alone. */
  readonly sections: readonly PackedSection[];
}

/** Layout of a whole packed file. */
export interface PackedLayout {
  readonly tensors: readonly PlacedTensor[];
  /** Free text of the manifest, by key. */
  readonly notes: Readonly<Record<string, string>>;
  /** Position of the first data byte. */
  readonly dataOffset: number;
  /** Size of the file. */
  readonly sizeBytes: number;
}

/** Whether a tensor of the file only fills a gap. */
export function isPadding(name: string): boolean {
  return name.startsWith(PADDING_PREFIX);
}

/** The matrix layout of a packed tensor; `undefined` for a dense one. */
export function packedMatrixLayout(tensor: PackedTensor): MatrixLayout | undefined {
  const { storage, shape } = tensor;
  if (!('groupSize' in storage)) return undefined;
  const [rows = 0, columns = 0] = shape;
  const { format, groupSize, factors } = storage;
  return matrixLayout({ rows, columns, format, groupSize, factors });
}

/** The sections of a tensor, placed from byte `at` of the data on. */
function sectionsOf(tensor: PackedTensor, at: number): PackedSection[] {
  const { name, shape, storage } = tensor;
  const layout = packedMatrixLayout(tensor);
  if (layout === undefined) {
    const type = storage.format as DenseType; // Without a group size the format is a dense type.
    const elements = shape.reduce((product, extent) => product * extent, 1);
    return [{ name, type, shape, begin: at, end: at + elements * (type === 'F32' ? 4 : 2) }];
  }
  const { rows, codeWordsPerRow, scaleWordsPerRow } = layout;
  const codesEnd = at + rows * codeWordsPerRow * 4;
  const begin = align(codesEnd);
  const section = { type: 'U32' as const };
  return [
    { ...section, name: `${name}.codes`, shape: [rows, codeWordsPerRow], begin: at, end: codesEnd },
    {
      ...section,
      name: `${name}.scales`,
      shape: [rows, scaleWordsPerRow],
      begin,
      end: begin + rows * scaleWordsPerRow * 4,
    },
  ];
}

function align(value: number): number {
  return Math.ceil(value / PACKED_ALIGNMENT) * PACKED_ALIGNMENT;
}

/**
 * Places tensors in the order given.
 * @throws VramError `invalid-argument` for a repeated or reserved name, or a shape that the storage
 * does not allow, naming the tensor.
 */
export function planPackedFile(
  tensors: readonly PackedTensor[],
  notes: Readonly<Record<string, string>> = {},
): PackedLayout {
  assertArgument(tensors.length <= MAX_TENSORS, `${tensors.length} tensors are too many`);
  const names = new Set<string>();
  let end = 0;
  const placed = tensors.map((tensor): PlacedTensor => {
    const { name, shape } = tensor;
    const isPacked = 'groupSize' in tensor.storage;
    assertArgument(
      shape.every((extent) => Number.isSafeInteger(extent) && extent > 0) &&
        (!isPacked || shape.length === 2),
      `'${name}' cannot be stored with the shape [${shape.join(', ')}]`,
      { tensor: name, shape },
    );
    const sections = sectionsOf(tensor, align(end));
    for (const section of sections) {
      if (names.has(section.name) || isPadding(section.name) || section.name === '__metadata__') {
        fail('invalid-argument', `the name '${section.name}' is taken`, { tensor: name });
      }
      names.add(section.name);
      end = section.end;
    }
    return { ...tensor, sections };
  });
  const layout = { tensors: placed, notes, dataOffset: 0, sizeBytes: 0 };
  const text = headerText(layout, new Map());
  const dataOffset = align(8 + new TextEncoder().encode(text).byteLength);
  return { ...layout, dataOffset, sizeBytes: dataOffset + end };
}

/** The header's JSON; checksums that are not known yet are zeros of the same length. */
function headerText(layout: PackedLayout, checksums: ReadonlyMap<string, string>): string {
  const tensors = layout.tensors.map(
    ({ name, shape, storage }) =>
      [name, { shape, ...storage, sha256: checksums.get(name) ?? NO_CHECKSUM }] as const,
  );
  const isCompact = layout.tensors.some(
    ({ storage }) => 'factors' in storage && storage.factors === 'compact',
  );
  const manifest = {
    version: MANIFEST_VERSIONS[isCompact ? 'compact' : 'plain'],
    notes: layout.notes,
    tensors: Object.fromEntries(tensors),
  };
  const entries: [string, unknown][] = [
    ['__metadata__', { [MANIFEST_KEY]: JSON.stringify(manifest) }],
  ];
  let end = 0;
  let gaps = 0;
  const add = (name: string, dtype: string, shape: readonly number[], to: number): void => {
    entries.push([name, { dtype, shape, data_offsets: [end, to] }]);
    end = to;
  };
  for (const { sections } of layout.tensors) {
    for (const { name, type, shape, begin, end: to } of sections) {
      if (begin > end) add(`${PADDING_PREFIX}${gaps++}`, 'U8', [begin - end], begin);
      add(name, type, shape, to);
    }
  }
  // Keys in this order, whatever they look like: a name may be a number.
  const members = entries.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
  return `{${members.join(',')}}`;
}

/** The bytes before the data. */
export function packedHeader(
  layout: PackedLayout,
  checksums: ReadonlyMap<string, string>,
): Uint8Array {
  const bytes = new Uint8Array(layout.dataOffset).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(layout.dataOffset - 8), true);
  bytes.set(new TextEncoder().encode(headerText(layout, checksums)), 8);
  return bytes;
}
