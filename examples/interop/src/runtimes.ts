/**
 * The other runtimes: where they are installed, and what they expect to find in Node.
 *
 * They live in `tools/runtimes`, apart from the workspaces, because they are large and only this
 * example needs them. So their types are not there when it is compiled, and each file types the few
 * functions that it uses.
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { installPinned, missingPeers, workspaceFolder } from '@vramkit/bench';
import { fail, type VramDevice } from '@vramkit/core';

/** The folder of the other runtimes. */
export const runtimesFolder = join(workspaceFolder, 'tools/runtimes');
const require = createRequire(join(runtimesFolder, 'package.json'));

/** Installs the runtimes where they are missing. @throws Error where npm cannot. */
export function installRuntimes(log: (line: string) => void): Promise<void> {
  return installPinned('tools/runtimes', 'other runtimes and their parts, 275 MB', log);
}

/** Why the runtimes cannot be used, or undefined where they can. */
export function whyNoRuntimes(): string | undefined {
  const missing = missingPeers(runtimesFolder);
  if (missing.length === 0) return undefined;
  return `not installed: ${missing.join(', ')}; run npm ci --prefix tools/runtimes`;
}

/** The path of what a package of the runtimes exports. */
export function resolveRuntime(specifier: string): string {
  const reason = whyNoRuntimes();
  if (reason !== undefined) fail('unsupported', reason);
  return require.resolve(specifier);
}

/** A CommonJS module of the runtimes; the caller says what of it is used. */
export function requireRuntime(specifier: string): unknown {
  return require(resolveRuntime(specifier));
}

/** Makes the names global that a page has, Node lacks and the runtimes look for. */
export function provideGlobals({ gpuDevice }: VramDevice): void {
  if ('GPUBufferUsage' in globalThis) return;
  const buffer = gpuDevice.createBuffer({ size: 4, usage: 8 });
  const texture = gpuDevice.createTexture({ size: [1], format: 'r8unorm', usage: 4 });
  Object.assign(globalThis, {
    GPUDevice: gpuDevice.constructor,
    GPUBuffer: buffer.constructor,
    GPUTexture: texture.constructor,
    GPUBufferUsage: {
      ...{ MAP_READ: 0x1, MAP_WRITE: 0x2, COPY_SRC: 0x4, COPY_DST: 0x8, INDEX: 0x10 },
      ...{ VERTEX: 0x20, UNIFORM: 0x40, STORAGE: 0x80, INDIRECT: 0x100, QUERY_RESOLVE: 0x200 },
    },
    GPUShaderStage: { VERTEX: 1, FRAGMENT: 2, COMPUTE: 4 },
    GPUMapMode: { READ: 1, WRITE: 2 },
  });
  buffer.destroy();
  texture.destroy();
}

/** Runs `make` while `navigator.gpu` is `gpu`, which runtimes insist on even with a device. */
export async function withNavigator<T>(gpu: object, make: () => T | Promise<T>): Promise<T> {
  const before = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  Object.defineProperty(globalThis, 'navigator', { value: { gpu }, configurable: true });
  try {
    return await make();
  } finally {
    if (before !== undefined) Object.defineProperty(globalThis, 'navigator', before);
    else Reflect.deleteProperty(globalThis, 'navigator');
  }
}
