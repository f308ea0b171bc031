/** Local paths that `store` is given, by the command in this process. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { runCommandLine } from '../command-line.js';
import { store } from './store.js';

let folder: string;
let blobs: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vramkit-store-paths-'));
  blobs = join(folder, 'blobs');
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function run(...args: string[]): Promise<{ status: number; err: string }> {
  let err = '';
  const terminal = {
    input: Readable.from([Buffer.from('text')]),
    bytes: () => Promise.resolve(),
    columns: 80,
    out: () => undefined,
    err: (text: string) => void (err += text),
    colours: false,
    interactive: false,
    version: '1.2.3',
  };
  const status = await runCommandLine(['store', ...args], [store], terminal);
  return { status, err };
}

describe('store on local paths', () => {
  it.each([['ls'], ['get', 'k'], ['head', 'k'], ['rm', 'k'], ['cp', 'k', 'memory:']])(
    '%s makes no folder that it only reads',
    async (verb, ...args) => {
      const path = join(folder, 'nodir');
      for (const address of [path, pathToFileURL(path).href]) {
        const err = `vramkit: not-found: there is no folder ${address}\n`;
        expect(await run(verb, address, ...args)).toEqual({ status: 1, err });
      }
      expect(readdirSync(folder)).toEqual([]);
    },
  );

  it('says which file cannot be read or written, and why', async () => {
    expect(await run('put', blobs, 'k')).toMatchObject({ status: 0 });
    const [none, nowhere] = [join(folder, 'none'), join(folder, 'none', 'x')];
    const cases: readonly [verb: string, file: string, status: number, message: string][] = [
      ['put', none, 1, `not-found: ${none} cannot be read`],
      ['put', folder, 2, `invalid-argument: ${folder} is no regular file; pipe its bytes`],
      ['get', nowhere, 1, `not-found: cannot write ${nowhere}`],
      ['get', folder, 2, `invalid-argument: ${folder} is a folder; name a file in it`],
    ];
    for (const [verb, file, status, message] of cases) {
      expect(await run(verb, blobs, 'k', file)).toEqual({ status, err: `vramkit: ${message}\n` });
    }
  });

  it('leaves other files alone while it gets one', async () => {
    const out = join(folder, 'out');
    await run('put', blobs, 'k');
    writeFileSync(`${out}.part`, 'mine');
    expect(await run('get', blobs, 'k', out)).toMatchObject({ status: 0 });
    expect(readFileSync(out, 'utf8')).toBe('text');
    expect(readFileSync(`${out}.part`, 'utf8')).toBe('mine');
    expect(readdirSync(folder).sort()).toEqual(['blobs', 'out', 'out.part']);
  });
});
