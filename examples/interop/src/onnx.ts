/**
 * ONNX Runtime Web on a Dawn device of ours in Node.
 *
 * The package's Node entry has no WebGPU provider. Its entry for pages has, and runs in Node where
 * it finds a page's names, its WebAssembly as bytes, and a device handed in: on a device of its own
 * it stops, because Dawn in Node writes no buffer from shared memory, which is what its heap is.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { VramDevice } from '@vramkit/core';
import type { Ort } from './ort.js';
import { provideGlobals, resolveRuntime } from './runtimes.js';

/** The folder of ONNX Runtime Web's modules. */
export function ortFolder(): string {
  return dirname(resolveRuntime('onnxruntime-web'));
}

/** Lets `writeBuffer` take views of shared memory, by a copy; a page does that by itself. */
function acceptSharedMemory({ gpuDevice: { queue } }: VramDevice): void {
  const write = queue.writeBuffer.bind(queue);
  queue.writeBuffer = (buffer, offset, data, start = 0, size) => {
    const shared = ArrayBuffer.isView(data) && data.buffer instanceof SharedArrayBuffer;
    if (!shared) return write(buffer, offset, data, start, size);
    const bytes = Uint8Array.from(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    write(buffer, offset, bytes, start, size);
  };
}

/**
 * ONNX Runtime Web for sessions on `device`, whose `gpu` must stay reachable.
 * @throws VramError `unsupported` where it is not installed.
 */
export async function openOrt(device: VramDevice, gpu: GPU): Promise<Ort> {
  provideGlobals(device);
  acceptSharedMemory(device);
  // It looks for navigator.gpu whenever a session is created, so the name stays.
  Object.defineProperty(globalThis, 'navigator', { value: { gpu }, configurable: true });
  const folder = ortFolder();
  const urlOf = (file: string): string => pathToFileURL(join(folder, file)).href;
  const ort = (await import(urlOf('ort.webgpu.min.mjs'))) as Ort; // Typed for what is used.
  const runtime = 'ort-wasm-simd-threaded.asyncify';
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = { mjs: urlOf(`${runtime}.mjs`) };
  ort.env.wasm.wasmBinary = readFileSync(join(folder, `${runtime}.wasm`));
  return ort;
}
