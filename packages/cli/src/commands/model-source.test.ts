/** Which file of a path is the model, and what is said where none is. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildGguf, buildSafetensors } from '@vramkit/packer/testing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { configuredExperts, openModelSource } from './model-source.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vramkit-model-source-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const tensor = { name: 'w', type: 'F32' as const, shape: [1, 4], bytes: new Uint8Array(16) };
const gguf = buildGguf({ metadata: { 'general.architecture': 'llama' }, tensors: [tensor] });
const safetensors = buildSafetensors([tensor]);

function write(name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

/** Format and file of the model at `path`. */
async function opened(path: string): Promise<{ format: string; files: readonly string[] }> {
  const { format, files, close } = await openModelSource(path);
  await close();
  return { format, files };
}

describe('the model at a path', () => {
  it('is the one file of a folder, whatever its name', async () => {
    const path = write('m.Q8_0.gguf', gguf);
    write('README.md', 'a model');
    expect(await opened(folder)).toEqual({ format: 'gguf', files: [path] });
    rmSync(path);
    const other = write('weights.safetensors', safetensors);
    expect(await opened(folder)).toEqual({ format: 'safetensors', files: [other] });
    const usual = write('model.safetensors', safetensors);
    expect(await opened(folder)).toEqual({ format: 'safetensors', files: [usual] });
  });

  it('is not guessed among several, and is missed in a folder without', async () => {
    await expect(opened(folder)).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining(`${folder} has no model.safetensors and no .gguf`) as string,
    });
    write('a.gguf', gguf);
    write('b.gguf', gguf);
    await expect(opened(folder)).rejects.toMatchObject({
      code: 'invalid-argument',
      message: expect.stringContaining('several models, a.gguf, b.gguf: name the file') as string,
    });
    await expect(opened(join(folder, 'none'))).rejects.toMatchObject({ code: 'not-found' });
  });

  it.each(['', 'GGU', 'text\n', 'a longer text that is no model'])('is not %j', async (text) => {
    const path = write('text.gguf', text);
    await expect(opened(path)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('text.gguf is neither GGUF nor safetensors') as string,
    });
  });
});

describe('experts of config.json', () => {
  it.each([
    ['{ "num_experts_per_tok": 2 }', 2],
    ['{ "num_experts_per_tok": "two" }', undefined],
    ['null', undefined],
    ['[]', undefined],
  ])('%s are %j', async (text, count) => {
    const path = write('model.safetensors', safetensors);
    write('config.json', text);
    expect(await configuredExperts(folder)).toBe(count);
    expect(await configuredExperts(path)).toBe(count);
  });

  it('are none without the file, and an error that names a broken one', async () => {
    expect(await configuredExperts(folder)).toBeUndefined();
    write('config.json', '{');
    await expect(configuredExperts(folder)).rejects.toMatchObject({
      code: 'corrupt-data',
      message: expect.stringContaining(join(folder, 'config.json')) as string,
    });
    // Who does not ask is not told.
    mkdirSync(join(folder, 'm'));
    writeFileSync(join(folder, 'm', 'config.json'), '{');
    writeFileSync(join(folder, 'm', 'model.safetensors'), safetensors);
    expect(await opened(join(folder, 'm'))).toMatchObject({ format: 'safetensors' });
  });
});
