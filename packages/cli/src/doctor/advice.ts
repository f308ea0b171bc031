/**
 * What to do when there is no adapter: first what this machine lacks, then what to install.
 *
 * The observations look at the files that the Vulkan loader and the kernel use. They only inform:
 * no decision depends on them.
 */
import { accessSync, constants, existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** A titled list of lines for people. */
export interface Advice {
  readonly title: string;
  readonly lines: readonly string[];
}

const loaderFolders = [
  '/usr/lib/x86_64-linux-gnu',
  '/usr/lib/aarch64-linux-gnu',
  '/usr/lib64',
  '/usr/lib',
  '/usr/local/lib',
];

function list(folder: string, keep: (name: string) => boolean): string[] {
  try {
    return readdirSync(folder).filter(keep).sort();
  } catch {
    return []; // A folder that is missing or closed to this user offers nothing.
  }
}

function mayOpen(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** What a Linux machine has of the things that WebGPU needs. */
function observeLinux(root: string): string[] {
  const loader = loaderFolders
    .map((folder) => join(root, folder, 'libvulkan.so.1'))
    .find((path) => existsSync(path));
  const manifests = ['usr/share/vulkan/icd.d', 'etc/vulkan/icd.d', 'usr/local/share/vulkan/icd.d']
    .map((folder) => join(root, folder))
    .flatMap((folder) => list(folder, (name) => name.endsWith('.json')));
  const nodes = [
    ...list(join(root, 'dev/dri'), (name) => name.startsWith('renderD')).map((n) => `dri/${n}`),
    ...list(join(root, 'dev'), (name) => name === 'nvidia0' || name === 'dxg'),
  ];
  const described = nodes.map(
    (name) => `/dev/${name}${mayOpen(join(root, 'dev', name)) ? '' : ' (closed to this user)'}`,
  );
  return [
    `GPU devices:     ${described.join(', ') || 'none'}`,
    `Vulkan loader:   ${loader ?? 'libvulkan.so.1 not found'}`,
    `Vulkan drivers:  ${manifests.join(', ') || 'none'}`,
  ];
}

const linuxAdvice: readonly Advice[] = [
  {
    title: 'With an Intel or AMD GPU',
    lines: [
      'Debian, Ubuntu   sudo apt install mesa-vulkan-drivers libvulkan1',
      'Fedora           sudo dnf install mesa-vulkan-drivers vulkan-loader',
      'Arch             sudo pacman -S vulkan-icd-loader vulkan-intel   (or vulkan-radeon)',
      'A device closed to this user: sudo usermod -aG render,video $USER, then log in again',
    ],
  },
  {
    title: 'With an NVIDIA GPU',
    lines: [
      "Install NVIDIA's own driver and libvulkan1 (vulkan-loader on Fedora)",
      'In a container: --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all',
    ],
  },
  {
    title: 'Without a GPU: lavapipe, a software driver (Mesa 23 or newer)',
    lines: [
      'Debian 13, Ubuntu 24.04   sudo apt install mesa-vulkan-drivers libvulkan1',
      'Debian 12                 sudo apt install -t bookworm-backports mesa-vulkan-drivers',
      'Fedora                    sudo dnf install mesa-vulkan-drivers vulkan-loader',
      'Arch                      sudo pacman -S vulkan-icd-loader vulkan-swrast',
    ],
  },
  {
    title: 'In a container with a GPU',
    lines: ['Intel, AMD: --device /dev/dri, and the packages above inside the container'],
  },
];

const platformAdvice: Readonly<Record<string, readonly Advice[]>> = {
  linux: linuxAdvice,
  darwin: [
    {
      title: 'On macOS',
      lines: [
        'WebGPU runs on Metal, which is part of the system: update macOS',
        'A virtual machine needs a paravirtualised GPU; without one there is no Metal',
      ],
    },
  ],
  win32: [
    {
      title: 'On Windows',
      lines: [
        'WebGPU runs on Direct3D 12: update Windows and the GPU driver',
        'A server or virtual machine without a GPU: add the Windows feature for a software adapter',
      ],
    },
  ],
};

const generalAdvice: readonly Advice[] = [
  {
    title: 'WebGPU in Node',
    lines: [
      'npm install webgpu',
      'It has binaries for Linux (glibc), macOS and Windows, on x64 and arm64; not for Alpine',
    ],
  },
  {
    title: 'A GPU of your own making',
    lines: [
      'Name a module in package.json:   "vramkit": { "gpu": "./gpu.js" }',
      'Its default export is a function that resolves to { gpu }, where gpu is a GPU as in',
      'navigator.gpu. It can open another driver, or Dawn with other flags.',
    ],
  },
];

/** What this machine lacks and what to do about it. */
export function adviseNoAdapter(
  platform: string = process.platform,
  root = '/',
): readonly Advice[] {
  const seen =
    platform === 'linux' ? [{ title: 'On this machine', lines: observeLinux(root) }] : [];
  return [...seen, ...(platformAdvice[platform] ?? []), ...generalAdvice];
}
