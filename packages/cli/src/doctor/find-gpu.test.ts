/** Which gpu module is found and loaded, over packages in a temporary folder. */
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findGpu, findGpuModule } from './find-gpu.js';

let root: string;
beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), 'vramkit-cli-test-')));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function put(path: string, text: string): string {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, text);
  return full;
}

const naming = (specifier: string) => JSON.stringify({ vramkit: { gpu: specifier } });
const gpuSource = '{ requestAdapter: async () => null, wgslLanguageFeatures: new Set() }';

describe('gpu module', () => {
  it('is named by the nearest package.json that has the field', () => {
    const top = put('package.json', naming('./top.js'));
    put('a/package.json', '{"name":"a"}');
    const inner = put('b/package.json', naming('./inner.js'));
    mkdirSync(join(root, 'b/c'));
    expect(findGpuModule(join(root, 'a'))).toEqual({ specifier: './top.js', packageJson: top });
    expect(findGpuModule(join(root, 'b/c'))).toEqual({
      specifier: './inner.js',
      packageJson: inner,
    });
  });

  it.each(['{}', '[]', 'null', '{"vramkit":null}', '{"vramkit":{"gpu":7}}'])(
    'is not named by %s',
    (text) => {
      put('package.json', naming('./top.js'));
      put('a/package.json', text);
      expect(findGpuModule(join(root, 'a'))?.specifier).toBe('./top.js');
    },
  );

  it('is refused in a package.json that is not JSON', () => {
    put('package.json', '{');
    expect(() => findGpuModule(root)).toThrow(/^corrupt-data: .*package\.json is not valid JSON/);
  });
});

describe('findGpu', () => {
  it('opens a relative module and one from node_modules, and passes the name on', async () => {
    const code = `export default async (options) => ({
      gpu: ${gpuSource}, adapter: options.adapter ?? 'best', driver: 'x' });`;
    put('gpu.mjs', code);
    put('package.json', naming('./gpu.mjs'));
    expect(await findGpu({ folder: root })).toMatchObject({
      source: './gpu.mjs',
      adapter: 'best',
      driver: 'x',
    });
    expect(await findGpu({ folder: root, adapter: 'slow' })).toMatchObject({ adapter: 'slow' });
    put('b/package.json', naming('some-gpu'));
    put('b/node_modules/some-gpu/package.json', '{"main":"main.mjs"}');
    put('b/node_modules/some-gpu/main.mjs', code);
    expect(await findGpu({ folder: join(root, 'b') })).toMatchObject({ source: 'some-gpu' });
  });

  it.each([
    ['./absent.mjs', 'not-found'],
    ['absent-package', 'not-found'],
    ['./throws.mjs', 'not-found'],
    ['./no-default.mjs', 'invalid-argument'],
    ['./no-gpu.mjs', 'invalid-argument'],
  ])('rejects the module %s with %s, naming it', async (specifier, code) => {
    put('throws.mjs', "throw new Error('at load');");
    put('no-default.mjs', 'export const open = () => ({});');
    put('no-gpu.mjs', 'export default () => ({ gpu: {} });');
    put('package.json', naming(specifier));
    await expect(findGpu({ folder: root })).rejects.toMatchObject({ code });
    await expect(findGpu({ folder: root })).rejects.toThrow(specifier);
  });

  it('passes on what the module throws', async () => {
    put('gpu.mjs', "export default () => Promise.reject(new RangeError('mine'));");
    put('package.json', naming('./gpu.mjs'));
    await expect(findGpu({ folder: root })).rejects.toThrow(RangeError);
  });

  it('refuses a name where no module knows names', async () => {
    await expect(findGpu({ folder: root, adapter: 'fast' })).rejects.toThrow(
      /invalid-argument: adapter 'fast' was asked for by name/,
    );
  });
});
