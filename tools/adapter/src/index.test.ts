/** Finding adapters on machines that are made up of files, and unpacking SwiftShader. */
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { chmodSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { isVramError } from '@vramkit/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createGpu, surveyAdapters, usableAdapters } from './index.js';
import type { Machine } from './index.js';
import { unpackSwiftShader } from './swiftshader.js';
import { chooseTestAdapters } from './test-adapters.js';
import type { TestAdapterEnv } from './test-adapters.js';
import { findManifests, findVulkanDrivers, judgeLavapipe } from './vulkan-drivers.js';
import { parseMesaVersion, readMesaVersion } from './vulkan-drivers.js';

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'vramkit-adapter-test-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

function put(path: string, text: string): string {
  const full = join(root, path);
  mkdirSync(dirname(full), { recursive: true });
  writeFileSync(full, text);
  return full;
}

function putDriver(name: string, library: string, apiVersion = '1.3.246'): string {
  const icd = { library_path: library, api_version: apiVersion };
  return put(name, JSON.stringify({ file_format_version: '1.0.0', ICD: icd }));
}

function putRenderNode(name: string, kernelDriver: string): void {
  put(`dev/dri/${name}`, '');
  mkdirSync(join(root, `sys/class/drm/${name}/device`), { recursive: true });
  symlinkSync(
    `../../../bus/pci/drivers/${kernelDriver}`,
    join(root, `sys/class/drm/${name}/device/driver`),
  );
}

function machine(overrides: Partial<Machine> = {}): Machine {
  return { platform: 'linux', arch: 'x64', env: {}, root, ...overrides };
}

const lavapipeManifest = 'usr/share/vulkan/icd.d/lvp_icd.x86_64.json';
const report = (name: string, on: Machine = machine()) =>
  surveyAdapters(on).find((each) => each.adapter === name);

describe('Mesa version', () => {
  it.each([
    ['Mesa 22.3.6 (LLVM 15.0.6)', '22.3.6'],
    ['25.0.7-2~bpo12+1Mesa 25.0.7-2~bpo12+1 (LLVM 15.0', '25.0.7'],
    ['Mesa DRI', undefined],
    ['', undefined],
  ])('of "%s" is %s', (text, version) => expect(parseMesaVersion(text)).toBe(version));

  it('is found between binary bytes, behind a text that only looks like one', () => {
    const library = put('lib/x.so', `\0\x7fELF Mesa library\0\0Mesa 24.1.3 (LLVM)\0`);
    expect(readMesaVersion(library)).toBe('24.1.3');
    expect(readMesaVersion(join(root, 'absent.so'))).toBeUndefined();
  });

  it.each([
    ['Mesa 22.3.6', '1.1.230', false],
    ['Mesa 23.0.0', '1.3.238', true],
    ['Mesa 25.0.7', '1.4.305', true],
    ['no version', '1.1.230', false],
    ['no version', '1.3.238', true],
    ['no version', '', false],
    ['no version', 'nonsense', false],
  ])('library with "%s" and api_version "%s": usable %s', (text, apiVersion, usable) => {
    const library = put('lib/x.so', `\0${text}\0`);
    const driver = { manifest: '/x.json', library, apiVersion, kind: 'lavapipe' as const };
    expect(judgeLavapipe(driver).usable).toBe(usable);
  });
});

describe('driver discovery', () => {
  it('lists each manifest once, drivers named by the environment first', () => {
    const named = putDriver('mine/lvp_icd.json', 'libvulkan_lvp.so');
    const system = putDriver(lavapipeManifest, 'libvulkan_lvp.so');
    const own = putDriver('home/.local/share/vulkan/icd.d/a_icd.json', 'liba.so');
    const env = { VK_DRIVER_FILES: named, VK_ICD_FILENAMES: named, HOME: join(root, 'home') };
    expect(findManifests(machine({ env }))).toEqual([named, system, own]);
  });

  it('searches XDG directories in place of the usual ones', () => {
    const usual = putDriver(lavapipeManifest, 'libvulkan_lvp.so');
    const other = putDriver('opt/share/vulkan/icd.d/lvp_icd.json', 'libvulkan_lvp.so');
    const env = { XDG_DATA_DIRS: join(root, 'opt/share') };
    expect(findManifests(machine({ env }))).toEqual([other, usual]);
  });

  it('finds a library by bare name, by relative path and by absolute path', () => {
    const bare = put('usr/lib/x86_64-linux-gnu/liba.so', 'x');
    put('usr/share/vulkan/icd.d/libb.so', 'x');
    putDriver('usr/share/vulkan/icd.d/a.json', 'liba.so');
    putDriver('usr/share/vulkan/icd.d/b.json', './libb.so');
    putDriver('usr/share/vulkan/icd.d/c.json', '/opt/libc.so');
    putDriver('usr/share/vulkan/icd.d/d.json', 'libabsent.so');
    expect(findVulkanDrivers(machine()).map((driver) => driver.library)).toEqual([
      bare,
      join(root, 'usr/share/vulkan/icd.d/libb.so'),
      join(root, 'opt/libc.so'),
      'libabsent.so',
    ]);
  });

  it('skips broken manifests and those of other processors', () => {
    put('usr/share/vulkan/icd.d/a.json', '{');
    put('usr/share/vulkan/icd.d/b.json', '[]');
    put('usr/share/vulkan/icd.d/c.json', '{"ICD":{"library_path":7}}');
    putDriver('usr/share/vulkan/icd.d/lvp_icd.i686.json', 'libvulkan_lvp.so');
    putDriver(lavapipeManifest, 'libvulkan_lvp.so');
    const drivers = findVulkanDrivers(machine());
    expect(drivers.map((driver) => driver.manifest)).toEqual([join(root, lavapipeManifest)]);
    expect(drivers[0]?.kind).toBe('lavapipe');
  });
});

describe('survey', () => {
  it('offers only SwiftShader on a bare Linux x64 machine and nothing on arm64', () => {
    expect(usableAdapters(machine())).toEqual(['swiftshader']);
    expect(usableAdapters(machine({ arch: 'arm64' }))).toEqual([]);
    expect(report('gpu')?.detail).toMatch(/no GPU device node/);
    expect(report('lavapipe')?.detail).toMatch(/mesa-vulkan-drivers/);
  });

  it('assumes hardware on macOS and Windows', () => {
    expect(usableAdapters(machine({ platform: 'darwin' }))).toEqual(['gpu']);
    expect(usableAdapters(machine({ platform: 'win32' }))).toEqual(['gpu']);
  });

  it('refuses an old lavapipe by name and takes a new one', () => {
    const library = put('usr/lib/x86_64-linux-gnu/libvulkan_lvp.so', 'Mesa 22.3.6 (LLVM 15)');
    putDriver(lavapipeManifest, 'libvulkan_lvp.so', '1.1.230');
    expect(report('lavapipe')).toMatchObject({ usable: false });
    expect(report('lavapipe')?.detail).toMatch(/Mesa 22\.3\.6 is too old/);
    writeFileSync(library, 'Mesa 25.0.7 (LLVM 15)');
    expect(report('lavapipe')).toMatchObject({
      usable: true,
      manifests: [join(root, lavapipeManifest)],
    });
  });

  it.each([
    ['amdgpu', 'radeon_icd.x86_64.json', true],
    ['i915', 'intel_icd.json', true],
    ['nvidia', 'nvidia_icd.json', true],
    ['i915', 'radeon_icd.json', false],
    ['vgem', 'intel_icd.json', false],
    ['bochs-drm', 'virtio_icd.json', false],
    ['i915', 'lvp_icd.json', false],
  ])('kernel driver %s with %s: hardware %s', (kernelDriver, manifest, usable) => {
    putRenderNode('renderD128', kernelDriver);
    const path = putDriver(`usr/share/vulkan/icd.d/${manifest}`, `lib${manifest}.so`);
    expect(report('gpu')?.usable).toBe(usable);
    expect(report('gpu')?.manifests).toEqual(usable ? [path] : []);
  });

  it('does not count installed hardware drivers without a device', () => {
    putDriver('usr/share/vulkan/icd.d/intel_icd.json', 'libvulkan_intel.so');
    putDriver('usr/share/vulkan/icd.d/radeon_icd.json', 'libvulkan_radeon.so');
    expect(report('gpu')?.usable).toBe(false);
  });

  it.skipIf(process.getuid?.() === 0)('does not count a device this user may not open', () => {
    putRenderNode('renderD128', 'i915');
    putDriver('usr/share/vulkan/icd.d/intel_icd.json', 'libvulkan_intel.so');
    chmodSync(join(root, 'dev/dri/renderD128'), 0);
    expect(report('gpu')?.detail).toMatch(/may not open/);
  });
});

const onCarrier = process.platform === 'linux' && process.arch === 'x64';
describe.runIf(onCarrier)('SwiftShader cache (linux x64, where it is carried)', () => {
  it('holds the driver, a loader and a manifest with an absolute path', async () => {
    const { manifest, loader } = await unpackSwiftShader([join(root, 'cache')]);
    const icd = JSON.parse(readFileSync(manifest, 'utf8')) as { ICD: { library_path: string } };
    expect(statSync(icd.ICD.library_path).size).toBeGreaterThan(1e6);
    expect(statSync(loader).size).toBeGreaterThan(1e5);
    expect(readdirSync(dirname(loader)).sort()).toEqual([
      'libvk_swiftshader.so',
      'libvulkan.so.1',
      'vk_swiftshader_icd.json',
    ]);
  });

  it('is made once by many processes and leaves nothing else behind', async () => {
    const cache = join(root, 'cache');
    const url = new URL('./swiftshader.ts', import.meta.url).href;
    const code = `const { unpackSwiftShader } = await import(${JSON.stringify(url)});
      console.log((await unpackSwiftShader([${JSON.stringify(cache)}])).loader);`;
    const options = ['--conditions=@vramkit/source', '--import', 'tsx', '--input-type=module'];
    const runs = await Promise.all(
      Array.from({ length: 4 }, () =>
        promisify(execFile)(process.execPath, [...options, '-e', code]),
      ),
    );
    const loaders = new Set(runs.map((run) => run.stdout.trim()));
    expect(loaders.size).toBe(1);
    expect(readdirSync(cache)).toHaveLength(1);
    expect(statSync([...loaders][0] ?? '').size).toBeGreaterThan(1e5);
  });

  it('is not written again when complete, and is repaired when a file is missing', async () => {
    const cache = [join(root, 'cache')];
    const { loader, manifest } = await unpackSwiftShader(cache);
    utimesSync(loader, 1, 1);
    await unpackSwiftShader(cache);
    expect(statSync(loader).mtimeMs).toBe(1000);
    rmSync(manifest);
    await unpackSwiftShader(cache);
    expect(statSync(manifest).size).toBeGreaterThan(0);
    expect(readdirSync(cache[0] ?? '')).toHaveLength(1);
  });

  it('goes to the next root where one cannot be made, and says so where none can', async () => {
    const blocked = join(put('file', ''), 'cache');
    const good = join(root, 'cache');
    const { loader } = await unpackSwiftShader([blocked, good]);
    expect(loader.startsWith(good)).toBe(true);
    const failure: unknown = await unpackSwiftShader([blocked]).catch((error: unknown) => error);
    expect(isVramError(failure, 'no-adapter')).toBe(true);
  });
});

describe('adapters of the GPU tests', () => {
  const reports = surveyAdapters(machine({ root: '/nowhere' }));

  it('are all that the machine offers, with a line for each missing one', () => {
    const { adapters, message } = chooseTestAdapters(reports, {});
    expect(adapters).toEqual(['swiftshader']);
    expect(message).toMatch(/run on: swiftshader\n.*not on gpu: .*\n.*not on lavapipe: /);
  });

  it('are narrowed by VRAMKIT_ADAPTER, and must exist where demanded', () => {
    const choose = (env: TestAdapterEnv) => chooseTestAdapters(reports, env);
    expect(choose({ VRAMKIT_ADAPTER: 'swiftshader' }).adapters).toEqual(['swiftshader']);
    expect(() => choose({ VRAMKIT_ADAPTER: 'gpu' })).toThrow(/'gpu' is required and missing: no/);
    expect(() => choose({ VRAMKIT_REQUIRE_ADAPTER: 'swiftshader, lavapipe' })).toThrow(
      /'lavapipe' is required and missing/,
    );
    expect(() => choose({ VRAMKIT_REQUIRE_ADAPTER: 'vulkan' })).toThrow(/unknown adapter 'vulkan'/);
    expect(choose({ VRAMKIT_REQUIRE_ADAPTER: 'swiftshader' }).adapters).toEqual(['swiftshader']);
  });

  it('are loudly none where there is none', () => {
    const none = surveyAdapters(machine({ arch: 'arm64' }));
    expect(chooseTestAdapters(none, {}).message).toMatch(/GPU TESTS DO NOT RUN/);
  });
});

describe('createGpu', () => {
  const before = process.env['VRAMKIT_ADAPTER'];
  afterEach(() => {
    if (before === undefined) delete process.env['VRAMKIT_ADAPTER'];
    else process.env['VRAMKIT_ADAPTER'] = before;
  });

  it('rejects an unknown VRAMKIT_ADAPTER with the names it knows', async () => {
    process.env['VRAMKIT_ADAPTER'] = 'cuda';
    const failure: unknown = await createGpu().catch((error: unknown) => error);
    expect(isVramError(failure, 'invalid-argument')).toBe(true);
    expect(String(failure)).toMatch(/'cuda'.*gpu, lavapipe, swiftshader/);
  });

  const missing = (['gpu', 'lavapipe', 'swiftshader'] as const).find(
    (name) => !usableAdapters().includes(name),
  );
  it.skipIf(missing === undefined)('rejects a known adapter that is missing here', async () => {
    process.env['VRAMKIT_ADAPTER'] = missing;
    const failure: unknown = await createGpu().catch((error: unknown) => error);
    expect(isVramError(failure, 'no-adapter')).toBe(true);
    expect(String(failure)).toContain(report(missing ?? '', machine({ root: '/' }))?.detail);
  });
});
