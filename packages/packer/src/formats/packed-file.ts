/**
 * Reading and writing packed files; the format is in `packed-layout.ts`.
 *
 * The header of a file is untrusted: safetensors rules are checked first, then that the manifest
 * and the tensors agree. Weights are read by range, and each tensor has a SHA-256 over its sections
 * that {@link verifyPacked} compares.
 */
import { assertArgument, fail } from '@vramkit/core';
import { isAffine, type MatrixFormat } from '../matrix-layout.js';
import type { ByteSource } from './byte-source.js';
import type { ByteSink } from './file-sink.js';
import { failCorrupt, failUnsupported } from './format-error.js';
import {
  isPadding,
  MANIFEST_KEY,
  MANIFEST_VERSIONS,
  packedHeader,
  packedMatrixLayout,
  planPackedFile,
  type PackedLayout,
  type PackedSection,
  type PackedStorage,
  type PackedTensor,
  type PlacedTensor,
} from './packed-layout.js';
import { readSafetensors, type SafetensorsFile } from './safetensors.js';

/** A packed file whose header was read; its source stays with the caller. */
export interface PackedFile {
  readonly source: ByteSource;
  readonly layout: PackedLayout;
  /** By name, in file order. */
  readonly tensors: ReadonlyMap<string, PlacedTensor>;
  /** SHA-256 of each tensor's sections, as lowercase hexadecimal digits. */
  readonly checksums: ReadonlyMap<string, string>;
}

/** SHA-256 over sections one after the other. */
export async function sectionsChecksum(sections: readonly Uint8Array[]): Promise<string> {
  const size = sections.reduce((sum, each) => sum + each.byteLength, 0);
  const all = new Uint8Array(size);
  let at = 0;
  for (const section of sections) {
    all.set(section, at);
    at += section.byteLength;
  }
  const digest = new Uint8Array(await globalThis.crypto.subtle.digest('SHA-256', all));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Writes the tensors of a plan, in any order, and the header at the end. */
export class PackedWriter {
  readonly #sink: ByteSink;
  readonly #layout: PackedLayout;
  readonly #checksums: Map<string, string>;

  /** @param done Checksums of tensors that an interrupted run has written. */
  constructor(sink: ByteSink, layout: PackedLayout, done: ReadonlyMap<string, string> = new Map()) {
    this.#sink = sink;
    this.#layout = layout;
    this.#checksums = new Map(done);
  }

  /**
   * Writes the sections of one tensor.
   * @returns Its checksum.
   * @throws VramError `invalid-argument` for a tensor that is not in the plan, or other sizes.
   */
  async write(name: string, sections: readonly Uint8Array[]): Promise<string> {
    const tensor = this.#layout.tensors.find((each) => each.name === name);
    assertArgument(
      tensor?.sections.length === sections.length &&
        tensor.sections.every(({ begin, end }, i) => end - begin === sections[i]?.byteLength),
      `the sections of '${name}' are not those of the plan`,
      { tensor: name, sizes: sections.map(({ byteLength }) => byteLength) },
    );
    for (const [i, { begin }] of tensor.sections.entries()) {
      const bytes = sections[i];
      if (bytes !== undefined) await this.#sink.write(this.#layout.dataOffset + begin, bytes);
    }
    const checksum = await sectionsChecksum(sections);
    this.#checksums.set(name, checksum);
    return checksum;
  }

  /**
   * Writes the header and commits. @throws VramError `invalid-argument` where a tensor is missing.
   */
  async finish(): Promise<void> {
    const { tensors, sizeBytes, dataOffset } = this.#layout;
    const missing = tensors.find(({ name }) => !this.#checksums.has(name));
    if (missing !== undefined) {
      fail('invalid-argument', `'${missing.name}' was not written`, { tensor: missing.name });
    }
    let end = dataOffset;
    for (const { begin, end: next } of tensors.flatMap(({ sections }) => sections)) {
      const gap = dataOffset + begin - end;
      if (gap > 0) await this.#sink.write(end, new Uint8Array(gap));
      end = dataOffset + next;
    }
    assertArgument(end === sizeBytes, `the plan ends at ${end}, not ${sizeBytes}`);
    await this.#sink.write(0, packedHeader(this.#layout, this.#checksums));
    await this.#sink.commit();
  }
}

/** Whether a safetensors file is a packed one. */
export function isPackedFile(file: SafetensorsFile): boolean {
  return file.metadata.has(MANIFEST_KEY);
}

/**
 * Reads and checks the header of a packed file.
 * @throws VramError `corrupt-data` naming file, tensor and numbers; `unsupported` for another
 * version of the manifest or no manifest; `aborted` by the signal.
 */
export async function readPackedFile(
  source: ByteSource,
  options: { readonly signal?: AbortSignal } = {},
): Promise<PackedFile> {
  const file = await readSafetensors(source, options);
  const manifest = parseManifest(source.name, file.metadata.get(MANIFEST_KEY));
  const layout = planFor(source.name, inFileOrder(manifest, file));
  const expected = layout.tensors.flatMap(({ sections }) => sections);
  for (const { name, type, shape, begin } of expected) {
    const found = file.tensors.get(name);
    const offset = layout.dataOffset + begin;
    if (
      found?.type !== type ||
      found.offset !== offset ||
      found.shape.length !== shape.length ||
      !found.shape.every((extent, i) => extent === shape[i])
    ) {
      const place = `${type} [${shape.join(', ')}] at ${offset}`;
      failCorrupt(source.name, `tensor '${name}' is not ${place}, as the manifest has it`, {
        tensor: name,
        offset,
        foundOffset: found?.offset,
      });
    }
  }
  const extra = [...file.tensors.keys()].filter((name) => !isPadding(name)).length;
  if (extra !== expected.length) {
    failCorrupt(source.name, `${extra} tensors, ${expected.length} in the manifest`, { extra });
  }
  return {
    source,
    layout,
    tensors: new Map(layout.tensors.map((tensor) => [tensor.name, tensor])),
    checksums: manifest.checksums,
  };
}

interface Manifest {
  readonly tensors: readonly PackedTensor[];
  readonly notes: Readonly<Record<string, string>>;
  readonly checksums: ReadonlyMap<string, string>;
}

function parseManifest(file: string, text: string | undefined): Manifest {
  if (text === undefined) return failUnsupported(file, 'it has no manifest of packed tensors');
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return failCorrupt(file, 'the manifest is not JSON');
  }
  const manifest = record(file, 'the manifest', parsed);
  const { version } = manifest;
  const { plain, compact } = MANIFEST_VERSIONS;
  if (version !== plain && version !== compact) {
    const text = JSON.stringify(version)?.slice(0, 40);
    failUnsupported(file, `manifest version ${text}, not ${plain} or ${compact}`, {
      version: text,
    });
  }
  const notes: Record<string, string> = {};
  for (const [key, value] of Object.entries(record(file, 'notes', manifest['notes']))) {
    if (typeof value !== 'string') failCorrupt(file, `the note '${key.slice(0, 80)}' is no text`);
    notes[key] = value;
  }
  const checksums = new Map<string, string>();
  const tensors = Object.entries(record(file, 'tensors', manifest['tensors'])).map(
    ([name, value]): PackedTensor => {
      const entry = record(file, `'${name.slice(0, 80)}'`, value);
      const { sha256, shape } = entry;
      if (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256)) {
        failCorrupt(file, `tensor '${name}' has no SHA-256`, { tensor: name });
      }
      checksums.set(name, sha256);
      if (
        !Array.isArray(shape) ||
        shape.length > 8 ||
        !shape.every((n) => Number.isSafeInteger(n))
      ) {
        failCorrupt(file, `tensor '${name}' has no shape`, { tensor: name });
      }
      // Every element was just checked to be an integer.
      return { name, shape: shape as number[], storage: storageOf(file, name, entry, version) };
    },
  );
  return { tensors, notes, checksums };
}

function storageOf(
  file: string,
  tensor: string,
  entry: Readonly<Record<string, unknown>>,
  version: number,
): PackedStorage {
  const { format, groupSize, quantizer, factors } = entry;
  const isCompact = factors === 'compact' && version === MANIFEST_VERSIONS.compact;
  if (format === 'F32' || format === 'F16' || format === 'BF16') return { format };
  const isKnown = ['affine2', 'affine3', 'affine4', 'affine8'].includes(String(format));
  // The list above holds formats only.
  const affine = format as MatrixFormat;
  if (
    isKnown &&
    isAffine(affine) &&
    typeof groupSize === 'number' &&
    typeof quantizer === 'string' &&
    (factors === undefined || isCompact)
  ) {
    return { format: affine, groupSize, ...(isCompact && { factors }), quantizer };
  }
  return failUnsupported(
    file,
    `tensor '${tensor}' has the unsupported storage '${String(format)}'` +
      (factors === undefined ? '' : ` with factors '${String(factors).slice(0, 40)}'`),
    { tensor },
  );
}

function record(file: string, what: string, value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    // Any object that JSON gives has string keys.
    return value as Readonly<Record<string, unknown>>;
  }
  return failCorrupt(file, `${what} of the manifest is not an object`);
}

/** The tensors as they lie: JSON puts names that are whole numbers before all others. */
function inFileOrder(manifest: Manifest, { tensors }: SafetensorsFile): Manifest {
  const offsetOf = ({ name, storage }: PackedTensor): number =>
    tensors.get('groupSize' in storage ? `${name}.codes` : name)?.offset ?? 0;
  const sorted = [...manifest.tensors].sort((a, b) => offsetOf(a) - offsetOf(b));
  return { ...manifest, tensors: sorted };
}

/** The manifest's own layout; what it cannot be is the file's fault. */
function planFor(file: string, manifest: Manifest): PackedLayout {
  try {
    return planPackedFile(manifest.tensors, manifest.notes);
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause);
    return failCorrupt(file, `the manifest is impossible: ${message}`);
  }
}

/**
 * Reads rows of one section of a tensor; a dense tensor has only the first.
 * @throws VramError `invalid-argument` for rows outside; what `source.read` throws.
 */
export function readPackedRows(
  file: PackedFile,
  tensor: PlacedTensor,
  request: {
    readonly section: 'codes' | 'scales';
    readonly firstRow: number;
    readonly rowCount: number;
    readonly signal?: AbortSignal | undefined;
  },
): Promise<Uint8Array> {
  const { firstRow, rowCount, signal } = request;
  const section = tensor.sections[request.section === 'codes' ? 0 : 1];
  const rows =
    packedMatrixLayout(tensor)?.rows ?? tensor.shape.slice(0, -1).reduce((a, b) => a * b, 1);
  assertArgument(
    section !== undefined && firstRow >= 0 && rowCount >= 0 && firstRow + rowCount <= rows,
    `rows ${firstRow} + ${rowCount} of ${request.section} are not in '${tensor.name}'`,
    { tensor: tensor.name, firstRow, rowCount, rows },
  );
  const rowBytes = (section.end - section.begin) / rows;
  const offset = file.layout.dataOffset + section.begin + firstRow * rowBytes;
  return file.source.read(offset, rowCount * rowBytes, signal);
}

/** Options of {@link readPackedTensors}. */
export interface ReadPackedTensorsOptions {
  /** Most bytes between two sections that are read along rather than left out. Default: 4096. */
  readonly maxGapBytes?: number;
  /** Stops the reading. */
  readonly signal?: AbortSignal;
}

/**
 * All sections of tensors that belong together, such as an expert's gate, up and down, in as few
 * reads as their places allow; each tensor is compared with its checksum.
 * @returns Sections by tensor, each a copy of its own.
 * @throws VramError `corrupt-data` naming the tensor that differs from its checksum;
 * `invalid-argument` for a name that the file does not have; what `source.read` throws.
 */
export async function readPackedTensors(
  file: PackedFile,
  names: readonly string[],
  { maxGapBytes = 4096, signal }: ReadPackedTensorsOptions = {},
): Promise<Map<string, readonly Uint8Array<ArrayBuffer>[]>> {
  const tensors = names.map((name) => {
    const tensor = file.tensors.get(name);
    return tensor ?? fail('invalid-argument', `there is no '${name}'`, { tensor: name });
  });
  const sections = tensors.flatMap((tensor) => tensor.sections);
  sections.sort((a, b) => a.begin - b.begin);
  const runs: { readonly begin: number; end: number; readonly parts: PackedSection[] }[] = [];
  for (const section of sections) {
    const last = runs[runs.length - 1];
    if (last !== undefined && section.begin - last.end <= maxGapBytes) {
      last.end = Math.max(last.end, section.end);
      last.parts.push(section);
    } else runs.push({ begin: section.begin, end: section.end, parts: [section] });
  }
  const bytesOf = new Map<PackedSection, Uint8Array<ArrayBuffer>>();
  for (const { begin, end, parts } of runs) {
    const bytes = await file.source.read(file.layout.dataOffset + begin, end - begin, signal);
    for (const part of parts) {
      // A copy, so that one part does not keep the whole run; slice() of a Buffer would be a view.
      const view = bytes.subarray(part.begin - begin, part.end - begin);
      bytesOf.set(part, new Uint8Array(view));
    }
  }
  const found = new Map<string, readonly Uint8Array<ArrayBuffer>[]>();
  for (const tensor of tensors) {
    const own = tensor.sections.map((section) => bytesOf.get(section) ?? new Uint8Array());
    await compareChecksum(file, tensor, own);
    found.set(tensor.name, own);
  }
  return found;
}

/**
 * Compares a tensor with its checksum; reads all of it.
 * @throws VramError `corrupt-data` naming the tensor where they differ.
 */
export async function verifyPacked(
  file: PackedFile,
  tensor: PlacedTensor,
  signal?: AbortSignal,
): Promise<void> {
  const sections: Uint8Array[] = [];
  for (const { begin, end } of tensor.sections) {
    sections.push(await file.source.read(file.layout.dataOffset + begin, end - begin, signal));
  }
  await compareChecksum(file, tensor, sections);
}

async function compareChecksum(
  file: PackedFile,
  tensor: PlacedTensor,
  sections: readonly Uint8Array[],
): Promise<void> {
  const expected = file.checksums.get(tensor.name);
  const actual = await sectionsChecksum(sections);
  if (actual === expected) return;
  failCorrupt(file.source.name, `tensor '${tensor.name}' has another SHA-256 than its manifest`, {
    tensor: tensor.name,
    expected,
    actual,
  });
}
