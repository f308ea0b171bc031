/** Files keep the contract; links, sparse giants and foreign files are their own rules. */
import { execFileSync } from 'node:child_process';
import { constants, existsSync } from 'node:fs';
import {
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rm,
  symlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isVramError } from '@vramkit/core';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { checksummedStore, posixStore, readBlob, type PosixStoreOptions } from '../index.js';
import { describeStore, testBytes } from '../testing.js';
import { PageCache, OpenFile } from './open-file.js';

const temporaryFolder = (): Promise<string> => mkdtemp(join(tmpdir(), 'vramkit-posix-'));

describeStore(
  'posix',
  async () => {
    const folder = await temporaryFolder();
    return {
      store: await posixStore({ folder }),
      other: await posixStore({ folder }),
      reopen: () => posixStore({ folder }),
      close: () => rm(folder, { recursive: true }),
    };
  },
  { describe, it, expect },
);

const direct = await (async () => {
  const folder = await temporaryFolder();
  try {
    await posixStore({ folder, direct: true });
    return true;
  } catch (error) {
    if (!isVramError(error, 'unsupported')) throw error;
    console.warn(`posix with O_DIRECT: not tested, ${error.message} (${folder})`);
    return false;
  } finally {
    await rm(folder, { recursive: true });
  }
})();

describe.runIf(direct)('posix past the page cache', () => {
  describeStore(
    'posix with O_DIRECT',
    async () => {
      const folder = await temporaryFolder();
      return {
        store: await posixStore({ folder, direct: true, chunkBytes: 2 ** 20 + 100 }),
        other: await posixStore({ folder }),
        reopen: () => posixStore({ folder, direct: true }),
        close: () => rm(folder, { recursive: true }),
      };
    },
    { describe, it, expect },
    { raceRounds: 4, pageKeys: 20, seeds: [3], steps: 80 },
  );
});

describe('posix', () => {
  let folder = '';
  beforeEach(async () => {
    folder = await temporaryFolder();
  });
  afterEach(() => rm(folder, { recursive: true }));

  it('refuses what is no folder name', async () => {
    // As a caller without types may call it.
    const opened = posixStore(folder as unknown as PosixStoreOptions);
    await expect(opened).rejects.toMatchObject({ code: 'invalid-argument', retryable: false });
  });

  it('follows no symbolic link out of the folder', async () => {
    const root = join(folder, 'root');
    const outside = join(folder, 'outside');
    await mkdir(outside);
    await writeFile(join(outside, 'secret'), 'secret');
    const store = await posixStore({ folder: root });
    await symlink(outside, join(root, 'away'));
    await symlink(join(outside, 'secret'), join(root, 'file'));
    await symlink(join(folder, 'nowhere'), join(root, 'dangling'));
    for (const key of ['away/secret', 'file', 'dangling', 'dangling/x']) {
      expect(await store.head(key)).toBeUndefined();
      await expect(readBlob(store, key)).rejects.toMatchObject({ code: 'not-found' });
      await store.delete(key);
    }
    for (const key of ['away/new', 'away/deep/new', 'dangling/x']) {
      await expect(store.put(key, testBytes(3))).rejects.toMatchObject({ name: 'VramError' });
    }
    // A put replaces a link itself, never what it leads to.
    await store.put('file', testBytes(3));
    expect(await readFile(join(outside, 'secret'), 'utf8')).toBe('secret');
    expect(await readdir(outside)).toEqual(['secret']);
    expect(await readdir(folder)).toEqual(['outside', 'root']);
    const keys: string[] = [];
    for await (const { key } of store.list('')) keys.push(key);
    for await (const { key } of store.list('away/')) keys.push(key);
    expect(keys).toEqual(['file']);
  });

  it('reads any part of a sparse file of 5 GiB', async () => {
    const store = await posixStore({ folder });
    const sizeBytes = 5 * 2 ** 30;
    const file = await open(join(folder, 'giant'), 'w');
    await file.truncate(sizeBytes);
    await file.write(testBytes(100), 0, 100, sizeBytes - 100);
    await file.close();
    expect(await store.head('giant')).toMatchObject({ sizeBytes });
    const options = { offsetBytes: sizeBytes - 2 ** 24, lengthBytes: 2 ** 24 };
    const tail = await readBlob(store, 'giant', { ...options, parallelGets: 4 });
    expect(tail.subarray(-100)).toEqual(testBytes(100));
    expect(tail.subarray(0, -100).every((byte) => byte === 0)).toBe(true);
  });

  it('removes temporary files of killed writers once they are old, and nothing else', async () => {
    const store = await posixStore({ folder });
    await store.put('kept', testBytes(3));
    const [old, young] = ['old', 'young'].map((name) => join(folder, '.vramkit-tmp', name));
    for (const path of [old, young]) await writeFile(path ?? '', 'half');
    await utimes(old ?? '', 1000, 1000);
    await utimes(join(folder, 'kept'), 1000, 1000);
    await posixStore({ folder });
    expect(await readdir(join(folder, '.vramkit-tmp'))).toEqual(['young']);
    expect(await readBlob(store, 'kept')).toEqual(testBytes(3));
  });

  it('does not wait for a pipe', async () => {
    const store = await posixStore({ folder });
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    await expect(readBlob(store, 'pipe')).rejects.toMatchObject({ code: 'not-found' });
  });

  it('reads on threads after a call that took long at a disk, and the same bytes', async () => {
    const path = join(folder, 'a');
    await writeFile(path, testBytes(100_000));
    const usage = process.resourceUsage();
    const diskReads = vi.spyOn(process, 'resourceUsage').mockReturnValue(usage);
    const cache = new PageCache();
    const readAll = async (): Promise<[boolean, Uint8Array]> => {
      const file = await OpenFile.open(path, constants.O_RDONLY, cache);
      await file.stat();
      const { isNear } = file;
      const bytes = new Uint8Array(100_000);
      // In pieces, an empty one among them.
      const pieces = [bytes.subarray(0, 7), bytes.subarray(7, 7), bytes.subarray(7)];
      expect(await file.readRange(0, pieces)).toBe(bytes.length);
      expect(await file.readRange(99_000, [new Uint8Array(5000)])).toBe(1000);
      await file.close();
      return [isNear, bytes];
    };
    vi.useFakeTimers({ toFake: ['performance'] });
    try {
      cache.timed(0, () => vi.advanceTimersByTime(10)); // the collector ran, say
      expect(await readAll()).toEqual([true, testBytes(100_000)]);
      diskReads.mockReturnValue({ ...usage, fsRead: usage.fsRead + 8 });
      cache.timed(0, () => vi.advanceTimersByTime(10));
      expect(await readAll()).toEqual([false, testBytes(100_000)]);
      vi.advanceTimersByTime(200);
      expect(await readAll()).toEqual([true, testBytes(100_000)]);
    } finally {
      diskReads.mockRestore();
      vi.useRealTimers();
    }
  });

  it('uses the memory of lent chunks again, and that of chunks to keep never', async () => {
    const files = await posixStore({ folder });
    for (const store of [files, checksummedStore(files)]) {
      await store.put('a', testBytes(24 * 2 ** 20));
      const memories = async (lend: boolean): Promise<number> => {
        const seen = new Set<ArrayBufferLike>();
        for await (const { buffer } of store.get('a', { lend })) seen.add(buffer);
        return seen.size;
      };
      expect(await memories(true)).toBeLessThanOrEqual(4);
      expect(await memories(false)).toBe(12);
    }
  });

  it('gives others a turn between reads that come at once', async () => {
    const store = await posixStore({ folder });
    await store.put('a', testBytes(1000));
    let isOver = false;
    setTimeout(() => (isOver = true), 20);
    let count = 0;
    for (; !isOver && count < 100_000; count += 1) await readBlob(store, 'a');
    expect(isOver).toBe(true);
  });

  it('publishes nothing after its signal, however late the sync is done', async () => {
    const store = await posixStore({ folder });
    await store.put('a', testBytes(10));
    const sync = vi.spyOn(OpenFile.prototype, 'sync');
    try {
      for (const condition of [undefined, 'absent'] as const) {
        const key = condition === undefined ? 'a' : 'b';
        const controller = new AbortController();
        sync.mockImplementation(async () => controller.abort());
        const { signal } = controller;
        const put = store.put(key, testBytes(20), { condition, signal });
        await expect(put).rejects.toMatchObject({ code: 'aborted' });
      }
    } finally {
      sync.mockRestore();
    }
    expect(await readBlob(store, 'a')).toEqual(testBytes(10));
    expect(await readdir(folder)).toEqual(['.vramkit-tmp', 'a']);
    expect(await readdir(join(folder, '.vramkit-tmp'))).toEqual([]);
  });

  it('leaves no folders behind where its signal comes after they were made', async () => {
    const store = await posixStore({ folder });
    const sync = vi.spyOn(OpenFile.prototype, 'sync');
    try {
      for (const condition of [undefined, 'absent'] as const) {
        const controller = new AbortController();
        sync.mockImplementation(async () => {
          if (existsSync(join(folder, 'a', 'b'))) controller.abort();
        });
        const { signal } = controller;
        const put = store.put('a/b/c', testBytes(20), { condition, signal });
        await expect(put).rejects.toMatchObject({ code: 'aborted' });
      }
    } finally {
      sync.mockRestore();
    }
    expect(await readdir(folder)).toEqual(['.vramkit-tmp']);
  });

  it('takes a key in place of folders that hold no file, and of no other', async () => {
    const store = await posixStore({ folder });
    // As a killed put of a/b/c and a killed delete leave them.
    const makeEmpty = () => mkdir(join(folder, 'a', 'b', 'c'), { recursive: true });
    for (const condition of [undefined, 'absent'] as const) {
      await makeEmpty();
      await store.put('a', testBytes(10), { condition });
      expect(await readBlob(store, 'a')).toEqual(testBytes(10));
      await store.delete('a');
    }
    await makeEmpty();
    await symlink(join(folder, 'nowhere'), join(folder, 'a', 'link'));
    const put = store.put('a', testBytes(10));
    await expect(put).rejects.toMatchObject({ code: 'invalid-argument' });
    expect(await readdir(join(folder, 'a'))).toContain('link');
  });

  it('has put what is deleted, with its folder, before the folder is synced', async () => {
    const store = await posixStore({ folder });
    const real = OpenFile.open.bind(OpenFile);
    let deletes = 0;
    const opened = vi.spyOn(OpenFile, 'open').mockImplementation(async (path, ...rest) => {
      if (path === join(folder, 'a') && deletes++ === 0) await store.delete('a/b');
      return real(path, ...rest);
    });
    try {
      expect(await store.put('a/b', testBytes(10))).toMatchObject({ sizeBytes: 10 });
    } finally {
      opened.mockRestore();
    }
    expect(deletes).toBeGreaterThan(0);
    expect(await readdir(folder)).toEqual(['.vramkit-tmp']);
  });

  it('lists around files whose names no key can have', async () => {
    const store = await posixStore({ folder });
    await store.put('a/b', testBytes(10));
    for (const name of ['back\\slash', 'x'.repeat(201), 'line\nbreak']) {
      await writeFile(join(folder, name), 'foreign');
      await mkdir(join(folder, 'a', name));
      await writeFile(join(folder, 'a', name, 'below'), 'foreign');
    }
    const keys: string[] = [];
    for await (const { key } of store.list('')) keys.push(key);
    expect(keys).toEqual(['a/b']);
  });

  it('sees a change by another program as another version', async () => {
    const store = await posixStore({ folder });
    const { version } = await store.put('a', testBytes(1000));
    await writeFile(join(folder, 'a'), 'changed');
    await expect(readBlob(store, 'a', { version })).rejects.toMatchObject({ code: 'conflict' });
  });

  it('says so when a file ends while it is read', async () => {
    const store = await posixStore({ folder, chunkBytes: 4096 });
    await store.put('a', testBytes(100_000));
    const read = async (): Promise<void> => {
      for await (const chunk of store.get('a')) {
        expect(chunk.length).toBe(4096);
        await (
          await open(join(folder, 'a'), 'r+').then(
            async (file) => (await file.truncate(5000), file),
          )
        ).close();
      }
    };
    await expect(read()).rejects.toMatchObject({ code: 'corrupt-data' });
  });
});
