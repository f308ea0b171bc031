// Every source answers ranges, copies, refuses what is outside, and follows the signal.
import { isVramError } from '@vramkit/core';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { blobSource, bytesSource, type ByteSource } from './byte-source.js';
import { fileSource } from './file-source.js';

const content = Uint8Array.from({ length: 1000 }, (_, i) => i * 7);
let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vramkit-sources-'));
  await writeFile(join(folder, 'a.bin'), content);
});
afterAll(() => rm(folder, { recursive: true }));

const sources: readonly [string, () => Promise<ByteSource>][] = [
  ['bytesSource', async () => bytesSource('memory', content)],
  ['blobSource', async () => blobSource('blob', new Blob([content]))],
  ['fileSource', () => fileSource(join(folder, 'a.bin'))],
];

describe.each(sources)('checklist 5: %s', (_, open) => {
  it('reads ranges into memory of the caller', async () => {
    const source = await open();
    expect(source.sizeBytes).toBe(1000);
    expect(await source.read(10, 5)).toEqual(content.slice(10, 15));
    const whole = await source.read(0, 1000);
    whole.fill(0);
    expect(await source.read(0, 1000)).toEqual(content);
    expect(await source.read(1000, 0)).toHaveLength(0);
    await source.close();
    await source.close();
  });

  it('refuses ranges outside, without allocating them', async () => {
    const source = await open();
    const wrong = [
      [990, 11],
      [-1, 2],
      [0, 2 ** 50],
      [2 ** 53, 1],
      [0.5, 1],
      [0, -1],
    ] as const;
    for (const [offset, length] of wrong) {
      const error: unknown = await source.read(offset, length).catch((e) => e);
      expect(isVramError(error, 'corrupt-data')).toBe(true);
      expect(String(error)).toContain(source.name);
    }
    await source.close();
  });

  it('follows the signal', async () => {
    const source = await open();
    const error: unknown = await source.read(0, 10, AbortSignal.abort()).catch((e) => e);
    expect(isVramError(error, 'aborted')).toBe(true);
    await source.close();
  });
});

describe('fileSource', () => {
  it('names what it cannot open', async () => {
    await expect(fileSource(join(folder, 'none'))).rejects.toThrow(/not-found: cannot open .*none/);
    await expect(fileSource(join(folder, 'a.bin', 'x'))).rejects.toThrow(/not-found/);
    await expect(fileSource(folder)).rejects.toThrow(/unsupported: .* is not a regular file/);
  });

  it('notices a file that got shorter, and use after close', async () => {
    const path = join(folder, 'short.bin');
    await writeFile(path, content);
    const source = await fileSource(path);
    await truncate(path, 500);
    await expect(source.read(400, 200)).rejects.toThrow(/ends at 500 B, 1000 B when it was opened/);
    await source.close();
    await expect(source.read(0, 1)).rejects.toThrow(/disposed/);
  });
});
