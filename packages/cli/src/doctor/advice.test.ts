/** Advice for machines that are made up of files in a temporary folder. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { adviseNoAdapter } from './advice.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'vramkit-cli-test-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const textOf = (platform: string) =>
  adviseNoAdapter(platform, root)
    .flatMap(({ title, lines }) => [title, ...lines])
    .join('\n');

describe('advice without an adapter', () => {
  it('says what a bare Linux machine lacks', () => {
    expect(textOf('linux')).toMatch(/GPU devices: +none\n.*libvulkan\.so\.1 not found\n.*none\n/);
  });

  it('says what a Linux machine has', () => {
    for (const folder of ['dev/dri', 'usr/lib64', 'usr/share/vulkan/icd.d']) {
      mkdirSync(join(root, folder), { recursive: true });
    }
    for (const file of ['dev/dri/renderD128', 'dev/dri/card0', 'usr/lib64/libvulkan.so.1']) {
      writeFileSync(join(root, file), '');
    }
    writeFileSync(join(root, 'usr/share/vulkan/icd.d/radeon_icd.json'), '{}');
    const text = textOf('linux');
    expect(text).toMatch(/GPU devices: +\/dev\/dri\/renderD128\n/);
    expect(text).toContain(join(root, 'usr/lib64/libvulkan.so.1'));
    expect(text).toMatch(/Vulkan drivers: +radeon_icd\.json/);
  });

  it.each([
    ['linux', [/apt install mesa-vulkan-drivers/, /bookworm-backports/, /NVIDIA/, /lavapipe/]],
    ['darwin', [/Metal/]],
    ['win32', [/Direct3D 12/]],
    ['freebsd', []],
  ])('names packages for %s, and how to bring a GPU everywhere', (platform, patterns) => {
    const text = textOf(platform);
    for (const pattern of [...patterns, /npm install webgpu/, /"vramkit": \{ "gpu": "/]) {
      expect(text).toMatch(pattern);
    }
  });
});
