/** The command on real stores, and on addresses that name none. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { VramError } from '@vramkit/core';
import { memoryStore, type BlobStore } from '@vramkit/storage';
import { measureStore } from '../doctor/measure-store.js';
import { doctorStore, type StoreReport } from './doctor-store.js';

const binary = fileURLToPath(new URL('../../bin/vramkit.js', import.meta.url));

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vramkit-cli-test-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function doctor(...args: string[]) {
  const options = { cwd: folder, encoding: 'utf8' } as const;
  return spawnSync(process.execPath, [binary, 'doctor', ...args], options);
}

/** The command without a process around it; all that it wrote. */
async function inProcess(address: string): Promise<{ status: number; out: string }> {
  let out = '';
  const write = (text: string): void => void (out += text);
  const input = Readable.from([]);
  const bytes = (): Promise<void> => Promise.resolve();
  const terminal = {
    input,
    bytes,
    columns: 80,
    out: write,
    err: write,
    colours: false,
    interactive: false,
    version: '0',
  };
  return { status: await doctorStore(address, false, terminal), out };
}

describe('vramkit doctor --store', () => {
  it('measures a folder, says what it suits, and leaves nothing in it', () => {
    const { status, stdout } = doctor('--store', './blobs', '--json');
    expect(status).toBe(0);
    const report = JSON.parse(stdout) as StoreReport;
    expect(report).toMatchObject({ ok: true, store: 'posix ./blobs' });
    expect(report.capabilities.durability).toBe('synced');
    expect(report.measured.sizes.map(({ sizeBytes }) => sizeBytes)).toEqual([
      4096,
      2 ** 18,
      2 ** 22,
      2 ** 26,
    ]);
    for (const { put, get } of report.measured.sizes) {
      expect(put.runs).toBeGreaterThanOrEqual(3);
      expect(get.mibPerSecond).toBeGreaterThan(0);
      expect(put.maxMs).toBeGreaterThanOrEqual(put.medianMs);
    }
    expect(report.measured.getsPerSecond).toBeGreaterThan(0);
    expect(report.workloads.map(({ workload, suits }) => [workload, suits])).toEqual([
      ['checkpoint', true],
      ['weights', true],
      ['kv-tier', true],
      ['index', false],
    ]);
    expect(readdirSync(join(folder, 'blobs'))).toEqual(['.vramkit-tmp']);
  });

  it('leaves nothing in it after Ctrl-C', async () => {
    const child = spawn(process.execPath, [binary, 'doctor', '--store', './blobs'], {
      cwd: folder,
      stdio: 'ignore',
    });
    const ended = once(child, 'exit');
    const measured = join(folder, 'blobs', 'vramkit-doctor');
    while (!existsSync(measured)) await new Promise((resolve) => setTimeout(resolve, 10));
    child.kill('SIGINT');
    expect(await ended).toEqual([130, null]);
    expect(readdirSync(join(folder, 'blobs'))).toEqual(['.vramkit-tmp']);
  });

  it('deletes what it can, and reports the first thing that went wrong', async () => {
    const broken = (fault: { readonly get: boolean }): [BlobStore, BlobStore] => {
      const memory = memoryStore();
      let deleted = 0;
      const failing = new VramError('unavailable', 'down');
      const store: BlobStore = {
        name: 'broken',
        capabilities: { ...memory.capabilities, maxBlobBytes: 4096 },
        put: (...call) => memory.put(...call),
        get: (...call) => {
          if (fault.get) throw new VramError('corrupt-data', 'first');
          return memory.get(...call);
        },
        head: (...call) => memory.head(...call),
        list: (...call) => memory.list(...call),
        delete: (...call) =>
          (deleted += 1) === 2 ? Promise.reject(failing) : memory.delete(...call),
      };
      return [store, memory];
    };
    for (const get of [true, false]) {
      const [store, memory] = broken({ get });
      const measured = measureStore(store, () => undefined);
      await expect(measured).rejects.toMatchObject(
        get ? { code: 'corrupt-data', message: 'corrupt-data: first' } : { code: 'unavailable' },
      );
      const left: string[] = [];
      for await (const { key } of memory.list('')) left.push(key);
      expect(left).toHaveLength(1);
    }
  });

  it('prints a table for people', async () => {
    const { status, out } = await inProcess('memory:');
    expect(status).toBe(0);
    expect(out).toMatch(/compare and swap +yes/);
    expect(out).toMatch(/64 MiB +[\d.,]+/);
    expect(out).toMatch(/checkpoint +no +nothing outlives the process/);
  });

  it('says what is wrong without the address, which may hold a password', async () => {
    for (const [address, code, text] of [
      ['ftp://user:hunter2@host/x', 2, /no store has addresses of ftp:/],
      ['sqlite:///hunter2', 1, /npm install libsql/],
      ['webhdfs://:hunter2@127.0.0.1:1/x', 2, /names a user/],
      ['webhdfs://me:hunter2@127.0.0.1:1/x', 1, /webhdfs 127.0.0.1:1/],
    ] as const) {
      const { status, out } = await inProcess(address);
      expect({ address, status }).toEqual({ address, status: code });
      expect(out).toMatch(text);
      expect(out).not.toContain('hunter2');
    }
  });
});
