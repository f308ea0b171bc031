/** The real binary where it has to fail: no adapter, or arguments that make no sense. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { DoctorFailure } from '../doctor/report.js';

const binary = fileURLToPath(new URL('../../bin/vramkit.js', import.meta.url));

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'vramkit-cli-test-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function vramkit(args: string[], env: Record<string, string> = {}) {
  const options = { cwd: folder, env: { ...process.env, ...env }, encoding: 'utf8' } as const;
  return spawnSync(process.execPath, [binary, ...args], options);
}

describe('vramkit doctor where no adapter is to be had', () => {
  const source = `export default () => Promise.reject(
    Object.assign(new Error('no-adapter: none'), { name: 'VramError', code: 'no-adapter' }));`;

  it('says what to do and exits with 1', () => {
    writeFileSync(join(folder, 'package.json'), '{"vramkit":{"gpu":"./gpu.mjs"}}');
    writeFileSync(join(folder, 'gpu.mjs'), source);
    const { status, stdout } = vramkit(['doctor']);
    expect(status).toBe(1);
    expect(stdout).toContain('no-adapter: none');
    expect(stdout).toMatch(/npm install webgpu[\s\S]*"vramkit": \{ "gpu": /);
  });

  it('says the same as JSON', () => {
    writeFileSync(join(folder, 'package.json'), '{"vramkit":{"gpu":"./gpu.mjs"}}');
    writeFileSync(join(folder, 'gpu.mjs'), source);
    const { status, stdout } = vramkit(['doctor', '--json']);
    const failure = JSON.parse(stdout) as DoctorFailure;
    expect(status).toBe(1);
    expect(failure).toMatchObject({ ok: false, error: { code: 'no-adapter' } });
    expect(failure.advice.length).toBeGreaterThan(1);
  });

  it.runIf(process.platform === 'linux')('does so by Dawn itself without a driver', () => {
    const none = join(folder, 'none.json');
    const env = { VK_DRIVER_FILES: none, VK_ICD_FILENAMES: none };
    const { status, stdout } = vramkit(['doctor'], env);
    expect(status).toBe(1);
    expect(stdout).toMatch(/no-adapter: WebGPU \(npm webgpu\) offers no adapter on this machine/);
    expect(stdout).toMatch(/On this machine\n +GPU devices: /);
  });
});

describe('vramkit with arguments that make no sense', () => {
  it.each([
    [['doctro'], /Did you mean 'doctor'\?/],
    [['doctor', '--adaptor', 'gpu'], /Did you mean '--adapter'\?/],
  ])('%j exits with 2 and a hint on standard error', (args, hint) => {
    const { status, stdout, stderr } = vramkit(args);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(hint);
  });

  it('exits with 2 for an adapter by name where no gpu module knows names', () => {
    const { status, stdout } = vramkit(['doctor', '--adapter', 'gpu', '--json']);
    expect(status).toBe(2);
    expect(JSON.parse(stdout)).toMatchObject({ ok: false, error: { code: 'invalid-argument' } });
  });
});
