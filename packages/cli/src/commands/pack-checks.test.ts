/** What packing refuses, by the command in this process: no weight is read. */
import { copyFileSync, linkSync, mkdirSync, mkdtempSync, readFileSync } from 'node:fs';
import { rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildGguf, buildSafetensors } from '@vramkit/packer/testing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCaptured } from '../testing/run-captured.js';
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

const run = (path: string, out: string, ...more: string[]) =>
  runCaptured(['pack', '--model', path, '--out', out, '--workers', '1', ...more], [pack]);

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

  it('matrices that are quantized already, and names the options that take them', async () => {
    const path = gguf('blk.0.attn_q.weight', 'token_embd.weight');
    const out = join(folder, 'out.safetensors');
    for (const more of [[], ['--target-bits', '4']]) {
      const { status, err } = await run(path, out, ...more);
      expect(err).toContain(
        "1 of 1 matrices are quantized already, such as 'blk.0.attn_q.weight', Q8_0: " +
          '--requantize packs them again, --keep leaves them as they are',
      );
      expect(status).toBe(2);
    }
    expect(await run(path, out, '--requantize')).toMatchObject({ status: 0 });
    const kept = await run(path, out, '--keep', '*');
    expect(kept.out).toMatch(/^2 tensors \(2 affine8\)/);
  });

  it('a target below the narrowest widths, in bits, before it measures', async () => {
    const out = join(folder, 'out.safetensors');
    const target = async (bits: string, ...more: string[]) =>
      run(model, out, '--dry-run', '--target-bits', bits, ...more);
    const { status, err } = await target('1');
    expect(err).toBe(
      'vramkit: invalid-argument: --target-bits 1 cannot be reached: scales counted, these ' +
        'matrices take at least 2.500 bits a weight\n',
    );
    expect(status).toBe(2);
    expect(await target('2.5')).toMatchObject({ status: 0 });
    const ruled = await target('2.5', '--rules', 'w=4');
    expect(ruled.err).toContain('take at least 4.500 bits a weight');
  });

  it.each([
    [['--bits', '4', '--target-bits', '4'], '--bits and --target-bits both choose widths'],
    [['--scores', 'kept.json'], '--scores keeps what --target-bits measures'],
    [['--rules', '/(/=3'], "the rule '/(/=3' has no valid regular expression"],
  ])('%j', async (more, message) => {
    const { status, err } = await run(model, join(folder, 'out.safetensors'), ...more);
    expect(err).toContain(message);
    expect(status).toBe(2);
  });

  it('to write over what it reads, by any of its names', async () => {
    const before = readFileSync(model);
    const [link, hardLink] = [join(folder, 'link'), join(folder, 'hard')];
    symlinkSync(model, link);
    linkSync(model, hardLink);
    for (const out of [model, link, hardLink, `${folder}/./in.safetensors`]) {
      const { status, err } = await run(model, out);
      expect(err).toContain(`${out} would overwrite ${model}, which is read; name another file`);
      expect(status).toBe(2);
    }
    const part = join(folder, 'x.part');
    copyFileSync(model, part);
    expect(await run(part, join(folder, 'x'))).toMatchObject({ status: 2 });
    expect(readFileSync(part).equals(before)).toBe(true);
    expect(readFileSync(model).equals(before)).toBe(true);
  });

  it('to write over a shard of a folder', async () => {
    const shards = join(folder, 'model');
    mkdirSync(shards);
    const names = ['a', 'b'].map((name) => [name, `${name}.safetensors`]);
    for (const [name = '', file = ''] of names) writeFileSync(join(shards, file), dense(name));
    const index = { metadata: {}, weight_map: Object.fromEntries(names) as unknown };
    writeFileSync(join(shards, 'model.safetensors.index.json'), JSON.stringify(index));
    const shard = join(shards, 'b.safetensors');
    const { status, err } = await run(shards, shard);
    expect(err).toContain(`${shard} would overwrite ${shard}`);
    expect(status).toBe(2);
    expect(await run(shards, join(shards, 'c.safetensors'))).toMatchObject({ status: 0 });
  });

  it('a folder as the file to write, and a file in no folder, before it packs', async () => {
    const { status, err } = await run(model, folder);
    expect(err).toContain(`--out ${folder} is a folder; name a file in it`);
    expect(status).toBe(2);
    const nowhere = await run(model, join(folder, 'none', 'out.safetensors'));
    expect(nowhere.err).toContain(`there is no folder ${join(folder, 'none')}`);
    expect(nowhere.status).toBe(1);
    expect(() => statSync(`${folder}.part`)).toThrow();
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
