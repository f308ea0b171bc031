/**
 * Says which adapters this machine offers, in order of preference, and why the others are missing.
 *
 * Three adapters exist for vramkit's own tools and tests: `gpu` (hardware), `lavapipe` (Mesa's
 * Vulkan on the CPU) and `swiftshader` (Google's, carried by the npm package
 * `@sparticuz/chromium`). This file looks at files only and never opens a driver, so vitest's
 * configuration can ask it. It is a forecast: `createGpu()` opens the adapter and has the last
 * word.
 *
 * A hardware GPU counts on Linux where a device node that this user may open belongs to a kernel
 * driver that some installed Vulkan driver serves; a node of a display-only or virtual device does
 * not. On macOS and Windows the system always carries a driver, so hardware is assumed.
 *
 * This file imports no sibling package, because vitest loads it before any resolution condition
 * holds.
 */
import { accessSync, constants, existsSync, readdirSync, readlinkSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { findVulkanDrivers, judgeLavapipe, thisMachine } from './vulkan-drivers.js';
import type { Machine, VulkanDriver } from './vulkan-drivers.js';

/** An adapter that vramkit's tools and tests can run on. */
export type AdapterName = 'gpu' | 'lavapipe' | 'swiftshader';

/** All adapters, the preferred first. */
export const adapterNames: readonly AdapterName[] = ['gpu', 'lavapipe', 'swiftshader'];

/** What is known about one adapter without opening it. */
export interface AdapterReport {
  /** Which adapter. */
  readonly adapter: AdapterName;
  /** Whether it should open. */
  readonly usable: boolean;
  /** The driver that was found, or what is missing and what to install. */
  readonly detail: string;
  /** Vulkan driver manifests to offer to the loader; empty where the system chooses. */
  readonly manifests: readonly string[];
}

/** Kernel drivers, and the Vulkan drivers (by manifest name) that can drive their device. */
const vulkanForKernelDriver: readonly (readonly [kernel: RegExp, vulkan: RegExp])[] = [
  [/^(i915|xe)$/, /intel/],
  [/^(amdgpu|radeon)$/, /radeon|amd/],
  [/^nvidia/, /nvidia/],
  [/^nouveau$/, /nouveau/],
  [/^msm/, /freedreno|qcom|adreno/],
  [/^v3d$/, /broadcom|v3dv/],
  [/^(panfrost|panthor|mali)/, /panfrost|mali/],
  [/^asahi$/, /asahi/],
  [/^(powervr|pvr)/, /powervr/],
  [/^virtio/, /virtio/],
  [/^dxg$/, /dzn/],
];

function mayOpen(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** Device nodes of GPUs with the kernel driver behind each. */
function findDeviceNodes(machine: Machine): { node: string; kernelDriver: string }[] {
  const nodes: { node: string; kernelDriver: string }[] = [];
  const dri = join(machine.root, 'dev/dri');
  const names = existsSync(dri) ? readdirSync(dri) : [];
  for (const name of names.filter((each) => each.startsWith('renderD')).sort()) {
    let kernelDriver = 'unknown';
    try {
      const link = join(machine.root, 'sys/class/drm', name, 'device/driver');
      kernelDriver = basename(readlinkSync(link));
    } catch {
      // Without /sys the kernel driver stays unknown, and no Vulkan driver is matched to it.
    }
    nodes.push({ node: join(dri, name), kernelDriver });
  }
  for (const [name, kernelDriver] of [
    ['nvidia0', 'nvidia'],
    ['dxg', 'dxg'],
  ] as const) {
    const node = join(machine.root, 'dev', name);
    if (existsSync(node)) nodes.push({ node, kernelDriver });
  }
  return nodes;
}

function surveyGpu(machine: Machine, drivers: readonly VulkanDriver[]): AdapterReport {
  const adapter = 'gpu';
  if (machine.platform === 'darwin' || machine.platform === 'win32') {
    return { adapter, usable: true, detail: "the system's own driver", manifests: [] };
  }
  const nodes = findDeviceNodes(machine);
  if (nodes.length === 0) {
    const detail = 'no GPU device node (/dev/dri/renderD*, /dev/nvidia0, /dev/dxg)';
    return { adapter, usable: false, detail, manifests: [] };
  }
  const hardware = drivers.filter((driver) => driver.kind === 'hardware');
  const problems: string[] = [];
  for (const { node, kernelDriver } of nodes) {
    const vulkan = vulkanForKernelDriver.find(([kernel]) => kernel.test(kernelDriver))?.[1];
    const matched = hardware.filter(({ manifest }) => vulkan?.test(basename(manifest)) === true);
    if (matched.length === 0) {
      problems.push(`${node} (kernel driver ${kernelDriver}) has no Vulkan driver`);
    } else if (!mayOpen(node)) {
      problems.push(`this user may not open ${node}; join the group that owns it`);
    } else {
      const detail = `${node} with ${matched.map((each) => basename(each.manifest)).join(', ')}`;
      // All hardware manifests are offered, so that a machine with two GPUs can choose the faster.
      return { adapter, usable: true, detail, manifests: hardware.map((each) => each.manifest) };
    }
  }
  return { adapter, usable: false, detail: problems.join('; '), manifests: [] };
}

function surveyLavapipe(drivers: readonly VulkanDriver[]): AdapterReport {
  const adapter = 'lavapipe';
  const judged = drivers
    .filter((driver) => driver.kind === 'lavapipe')
    .map((driver) => ({ driver, ...judgeLavapipe(driver) }));
  const chosen = judged.find((each) => each.usable);
  if (chosen !== undefined) {
    const detail = `${chosen.version}, ${chosen.driver.manifest}`;
    return { adapter, usable: true, detail, manifests: [chosen.driver.manifest] };
  }
  const detail =
    judged.length === 0
      ? 'no lvp_icd*.json installed; Debian, Ubuntu and Fedora have it in mesa-vulkan-drivers'
      : `${judged.map((each) => each.version).join(', ')} is too old, Mesa 23 or newer is needed` +
        ' (Debian 12 has 25.0 in bookworm-backports)';
  return { adapter, usable: false, detail, manifests: [] };
}

/** Where `@sparticuz/chromium` keeps its packed SwiftShader, and the package's version. */
export function findPackedSwiftShader(): { archive: string; packageJson: string } | undefined {
  try {
    // The package's exports hide its files, so its folder is found from its CommonJS entry.
    const require = createRequire(import.meta.url);
    const entry = require.resolve('@sparticuz/chromium');
    const folder = dirname(dirname(dirname(entry)));
    const archive = join(folder, 'bin/swiftshader.tar.br');
    return existsSync(archive) ? { archive, packageJson: join(folder, 'package.json') } : undefined;
  } catch {
    return undefined;
  }
}

function surveySwiftShader(machine: Machine): AdapterReport {
  const adapter = 'swiftshader';
  if (machine.platform !== 'linux' || machine.arch !== 'x64') {
    const detail = `carried for linux x64 only, this is ${machine.platform} ${machine.arch}`;
    return { adapter, usable: false, detail, manifests: [] };
  }
  const usable = findPackedSwiftShader() !== undefined;
  const detail = usable
    ? 'carried by the npm package @sparticuz/chromium'
    : 'the npm package @sparticuz/chromium is not installed; run npm ci';
  return { adapter, usable, detail, manifests: [] };
}

/** Reports on every adapter, the preferred first. Reads files, opens no driver. */
export function surveyAdapters(machine: Machine = thisMachine()): AdapterReport[] {
  const drivers = machine.platform === 'linux' ? findVulkanDrivers(machine) : [];
  return [surveyGpu(machine, drivers), surveyLavapipe(drivers), surveySwiftShader(machine)];
}

/** The adapters that this machine offers, the preferred first. Reads files, opens no driver. */
export function usableAdapters(machine: Machine = thisMachine()): AdapterName[] {
  return surveyAdapters(machine).flatMap((report) => (report.usable ? [report.adapter] : []));
}
