/** The command on folders and between them, by processes as a script calls it. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const binary = fileURLToPath(new URL('../../bin/vramkit.js', import.meta.url));

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vramkit-cli-store-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function store(args: string[], input: Buffer | string = '') {
  const result = spawnSync(process.execPath, [binary, 'store', ...args], {
    cwd: folder,
    input,
    maxBuffer: 2 ** 26,
  });
  const { status, stdout, stderr } = result;
  return { status, bytes: stdout, out: stdout.toString(), err: stderr.toString() };
}

function json(...args: string[]): { status: number | null; report: unknown } {
  const { status, out } = store([...args, '--json']);
  return { status, report: JSON.parse(out) as unknown };
}

/** Bytes that are no text: a pipe that decodes them shows. */
const bytes = Buffer.from(Uint8Array.from({ length: 3_000_000 }, (_, i) => (i * 7) ^ (i >> 8)));

describe('vramkit store', () => {
  it('gives back the bytes that it was given, by pipe and by file', () => {
    writeFileSync(join(folder, 'in.bin'), bytes);
    expect(store(['put', './blobs', 'a/file', 'in.bin'])).toMatchObject({ status: 0 });
    expect(store(['put', './blobs', 'a/pipe'], bytes)).toMatchObject({ status: 0 });
    expect(store(['get', './blobs', 'a/file']).bytes.equals(bytes)).toBe(true);
    expect(store(['get', './blobs', 'a/pipe', 'out.bin'])).toMatchObject({ status: 0, out: '' });
    expect(readFileSync(join(folder, 'out.bin')).equals(bytes)).toBe(true);
    const { out } = store(['ls', './blobs', 'a/']);
    expect(out).toMatch(/^ +3000000 {2}a\/file {2}\S+\n +3000000 {2}a\/pipe {2}\S+\n$/);
  });

  it('says the same as JSON', () => {
    store(['put', './blobs', 'k'], 'text');
    const blob = { key: 'k', sizeBytes: 4, version: expect.any(String) as string };
    const one = { ok: true, store: 'posix ./blobs', blob };
    expect(json('head', './blobs', 'k')).toEqual({ status: 0, report: one });
    expect(json('ls', './blobs')).toEqual({
      status: 0,
      report: { ok: true, store: 'posix ./blobs', blobs: [blob], sizeBytes: 4 },
    });
    expect(json('get', './blobs', 'k', 'f').report).toMatchObject({ blob, file: 'f' });
    expect(json('rm', './blobs', 'k').report).toMatchObject({ ok: true, removed: ['k'] });
    expect(json('head', './blobs', 'k')).toMatchObject({ status: 1, report: { ok: false } });
    expect(json('get', './blobs', 'k')).toMatchObject({
      status: 1,
      report: { ok: false, error: { code: 'not-found' } },
    });
  });

  it('copies one blob, or all below a key, to another store', () => {
    for (const key of ['w/0', 'w/1', 'x']) store(['put', './from', key], `bytes of ${key}`);
    expect(store(['cp', './from', 'x', './to', 'y']).status).toBe(0);
    const all = json('cp', './from', 'w/', './to', 'weights/', '--recursive');
    expect(all.report).toMatchObject({ blobs: [{ key: 'weights/0' }, { key: 'weights/1' }] });
    expect(store(['get', './to', 'weights/1']).out).toBe('bytes of w/1');
    expect(store(['get', './to', 'y']).out).toBe('bytes of x');
    expect(store(['rm', './from', 'w/', '--recursive']).out).toBe('2 blobs removed\n');
    expect(store(['ls', './from']).out).toMatch(/^ +\d+ {2}x {2}\S+\n$/);
  });

  it('copies what is below a key to below the same key, once', () => {
    for (const key of ['w/0', 'w/5/x']) store(['put', './blobs', key], `bytes of ${key}`);
    const all = json('cp', './blobs', 'w/', './blobs', 'w/5/', '--recursive');
    expect(all.report).toMatchObject({ blobs: [{ key: 'w/5/0' }, { key: 'w/5/5/x' }] });
    expect(store(['ls', './blobs']).out.trim().split('\n')).toHaveLength(4);
  });

  it('puts once where it is asked to, and leaves no half file', () => {
    expect(store(['put', './blobs', 'k', '--if-absent'], 'one').status).toBe(0);
    const second = store(['put', './blobs', 'k', '--if-absent'], 'two');
    expect(second).toMatchObject({ status: 1, err: expect.stringContaining('conflict') as string });
    expect(store(['get', './blobs', 'k']).out).toBe('one');
    expect(store(['get', './blobs', 'gone', 'file']).status).toBe(1);
    expect(existsSync(join(folder, 'file'))).toBe(false);
    expect(readdirSync(folder)).toEqual(['blobs']);
  });

  it.each([
    [[], /'store' needs VERB/],
    [['sl', './blobs'], /'sl' is no VERB\. Did you mean 'ls'\?/],
    [['get', './blobs'], /'store get' takes ADDRESS KEY \[FILE\]/],
    [['head', './blobs', 'a', 'b'], /'store head' takes ADDRESS KEY\./],
    [['ls', 'ftp://host'], /no store has addresses of ftp:/],
    [['put', './blobs', '../out'], /bad key/],
  ])('refuses %j with 2', (args, message) => {
    const { status, err } = store(args);
    expect(err).toMatch(message);
    expect(status).toBe(2);
  });

  it('prints no password of an address', () => {
    const { status, err } = store(['ls', 'webhdfs://me:hunter2@127.0.0.1:1/x']);
    expect(status).toBe(1);
    expect(err).not.toContain('hunter2');
  });
});
