/** What packing refuses, by the command in this process: no weight is read. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buildGguf, buildSafetensors } from '@vramkit/packer/testing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCommandLine } from '../command-line.js';
import { pack } from './pack.js';

let folder: string;
let model: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vramkit-pack-checks-'));
  model = join(folder, 'in.safetensors');
  writeFileSync(model, dense('w'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A safetensors file of one matrix. */
function dense(name: string): Uint8Array {
  const values = Float32Array.from({ length: 4 * 64 }, (_, i) => Math.sin(i));
  const bytes = new Uint8Array(values.buffer);
  return buildSafetensors([{ name, type: 'F32', shape: [4, 64], bytes }]);
}

/** A GGUF file of matrices of Q8_0 blocks, each [4, 32]; all zero. */
function gguf(...names: string[]): string {
  const path = join(folder, 'in.gguf');
  const shape = [4, 32];
  const tensors = names.map((name) => {
    return { name, type: 'Q8_0' as const, shape, bytes: new Uint8Array(4 * 34) };
  });
  writeFileSync(path, buildGguf({ metadata: { 'general.architecture': 'llama' }, tensors }));
  return path;
}

async function run(path: string, out: string, ...more: string[]) {
  const outcome = { status: -1, out: '', err: '' };
  const terminal = {
    input: Readable.from([]),
    bytes: () => Promise.resolve(),
    columns: 80,
    out: (text: string) => void (outcome.out += text),
    err: (text: string) => void (outcome.err += text),
    colours: false,
    interactive: false,
    version: '1.2.3',
  };
  const args = ['pack', '--model', path, '--out', out, '--workers', '1', ...more];
  outcome.status = await runCommandLine(args, [pack], terminal);
  return outcome;
}

describe('pack refuses', () => {
  it('a file that is packed already, and leaves it', async () => {
    const packed = join(folder, 'packed.safetensors');
    expect(await run(model, packed)).toMatchObject({ status: 0 });
    const before = readFileSync(packed);
    for (const out of [packed, join(folder, 'again.safetensors')]) {
      const { status, err } = await run(packed, out);
      expect(err).toContain('packed.safetensors is packed already; pack the original');
      expect(status).toBe(2);
    }
    expect(readFileSync(packed).equals(before)).toBe(true);
  });

  it('a file without tensors', async () => {
    writeFileSync(model, buildSafetensors([]));
    const { status, err } = await run(model, join(folder, 'out.safetensors'));
    expect(err).toContain('in.safetensors has no tensors');
    expect(status).toBe(2);
  });
});

describe('a kept matrix of blocks', () => {
  it('keeps its bits, is not counted as packed, and that it grows is said', async () => {
    const path = gguf('token_embd.weight');
    const { status, out, err } = await run(path, join(folder, 'out.safetensors'));
    expect(status, err).toBe(0);
    expect(out).toMatch(/^1 tensors \(1 affine8\), \d+ B, none packed\n$/);
    expect(err).toContain(
      "the result is larger than the input: 0.0 MB after 0.0 MB, most by 'token_embd.weight': " +
        'Q8_0 of 0.0 MB is affine8 of 0.0 MB',
    );
    const smaller = await run(model, join(folder, 'small.safetensors'));
    expect(smaller.err).not.toContain('larger');
  });
});
