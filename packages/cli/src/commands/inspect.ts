/**
 * `vramkit inspect`: the tensors of a model file, how they are stored, and whether a packed file's
 * bytes are those that were written.
 */
import {
  bitsPerWeight,
  packedMatrixLayout,
  verifyPacked,
  type MatrixLayout,
} from '@vramkit/packer';
import { fail } from '@vramkit/core';
import type { Command, OptionValues, Terminal } from '../command-line.js';
import { openModelSource, type ModelSource } from './model-source.js';

/** One tensor of a report; plain data. */
interface TensorReport {
  readonly name: string;
  readonly shape: readonly number[];
  readonly format: string;
  readonly sizeBytes: number;
  readonly bitsPerWeight: number;
  readonly quantizer?: string;
}

/** `affine4/32`, with the format of factors where it is not f16. */
function formatName({ format, groupSize, factors }: MatrixLayout): string {
  return `${format}/${groupSize}${factors === 'f16' ? '' : ` ${factors}`}`;
}

function report(source: ModelSource): TensorReport[] {
  if (source.packed === undefined) {
    return source.tensors.map(({ name, shape, type, sizeBytes }) => {
      const weights = shape.reduce((product, extent) => product * extent, 1);
      return { name, shape, format: type, sizeBytes, bitsPerWeight: (8 * sizeBytes) / weights };
    });
  }
  return [...source.packed.tensors.values()].map((tensor) => {
    const { name, shape, storage, sections } = tensor;
    const layout = packedMatrixLayout(tensor);
    const sizeBytes = sections.reduce((sum, { begin, end }) => sum + end - begin, 0);
    const weights = shape.reduce((product, extent) => product * extent, 1);
    return {
      name,
      shape,
      format: layout === undefined ? storage.format : formatName(layout),
      sizeBytes,
      bitsPerWeight: layout === undefined ? (8 * sizeBytes) / weights : bitsPerWeight(layout),
      ...('quantizer' in storage ? { quantizer: storage.quantizer } : {}),
    };
  });
}

async function run(
  options: OptionValues,
  terminal: Terminal,
  [argument]: readonly string[] = [],
): Promise<number> {
  const { model } = options;
  if (argument !== undefined && model !== undefined) {
    fail('invalid-argument', 'PATH and --model both name a model; give one of them');
  }
  const path = argument ?? model;
  if (typeof path !== 'string') return fail('invalid-argument', 'name a model: PATH or --model');
  const source = await openModelSource(path);
  try {
    const tensors = report(source);
    if (options['verify'] === true) {
      if (source.packed === undefined) fail('unsupported', `${path} has no checksums`);
      for (const tensor of source.packed.tensors.values()) {
        await verifyPacked(source.packed, tensor);
      }
    }
    if (options['json'] === true) {
      const notes = source.packed?.layout.notes ?? {};
      terminal.out(`${JSON.stringify({ format: source.format, notes, tensors }, null, 2)}\n`);
      return 0;
    }
    const width = Math.max(...tensors.map(({ name }) => name.length));
    for (const { name, shape, format, bitsPerWeight: bits, sizeBytes } of tensors) {
      const extents = `[${shape.join(', ')}]`.padEnd(16);
      const cells = [name.padEnd(width), extents, format.padEnd(18), bits.toFixed(3).padStart(7)];
      terminal.out(`${cells.join('  ')}  ${String(sizeBytes).padStart(11)} B\n`);
    }
    const total = tensors.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const verified = options['verify'] === true ? ', every checksum right' : '';
    terminal.out(`${tensors.length} tensors of a ${source.format} file, ${total} B${verified}\n`);
    return 0;
  } finally {
    await source.close();
  }
}

/** The command. */
export const inspect: Command = {
  name: 'inspect',
  summary: 'list the tensors of a model file and how they are stored',
  options: {
    model: { type: 'string', value: 'PATH', summary: 'the same as the argument' },
    json: { type: 'boolean', summary: 'print the report as JSON' },
    verify: { type: 'boolean', summary: 'read a packed file and compare its checksums' },
  },
  arguments: [{ name: 'PATH', summary: 'GGUF or safetensors file, or a folder', optional: true }],
  examples: [['vramkit inspect out.safetensors --verify', 'see that a packed file is whole']],
  run,
};
