/** Tensors of a checkpoint into buffers of the device, in parts that are checked and let go. */
import { assertArgument, checkInteger, writeRange, type BufferRange } from '@vramkit/core';
import type { VramDevice } from '@vramkit/core';
import type { CallOptions } from './blob-store.js';
import type { Checkpoints } from './checkpoint.js';
import type { CheckpointManifest } from './checkpoint-format.js';
import { chunkPool } from './chunk-pool.js';
import { inParallel } from './parallel.js';

/** Options of {@link readToDevice}. */
export interface ReadToDeviceOptions extends CallOptions {
  /** First byte of the tensor. Default: 0. */
  readonly offsetBytes?: number;
  /** Bytes from there. Default: up to the tensor's end. */
  readonly lengthBytes?: number;
  /** Bytes read and written at once, a multiple of 4. Default: 4 MiB. */
  readonly chunkBytes?: number;
  /** Chunks in flight; host memory is this times `chunkBytes`. Default: 2. */
  readonly parallel?: number;
}

/**
 * Reads a tensor, or a byte range of one, into `range` from its start on. Every byte is checked
 * before it is written; after a failure the range holds some of the chunks. The device sees them
 * before any work that is submitted later.
 * @returns Bytes that were written; up to 3 bytes behind them, to a multiple of 4, become zero.
 * @throws VramError `invalid-argument` where the range is too small, and as
 * {@link Checkpoints.read}; `device-lost`.
 */
export async function readToDevice(
  checkpoints: Checkpoints,
  manifest: CheckpointManifest,
  tensor: string,
  { device, range }: { readonly device: VramDevice; readonly range: BufferRange },
  options: ReadToDeviceOptions = {},
): Promise<number> {
  const { offsetBytes = 0, chunkBytes = 2 ** 22, parallel = 2, signal } = options;
  checkInteger('chunkBytes', chunkBytes, 4, 2 ** 30);
  assertArgument(chunkBytes % 4 === 0, `chunkBytes ${chunkBytes} is no multiple of 4`);
  checkInteger('parallel', parallel, 1, 64);
  const sizeBytes = Object.hasOwn(manifest.tensors, tensor)
    ? (manifest.tensors[tensor]?.sizeBytes ?? 0)
    : 0; // an unknown one is refused by the read
  const lengthBytes = options.lengthBytes ?? Math.max(0, sizeBytes - offsetBytes);
  assertArgument(
    lengthBytes <= range.sizeBytes,
    `${lengthBytes} B of '${tensor}' do not fit a range of ${range.sizeBytes} B`,
    { tensor, lengthBytes, rangeBytes: range.sizeBytes },
  );
  const count = Math.max(1, Math.ceil(lengthBytes / chunkBytes));
  await inParallel(count, parallel, async (index) => {
    const at = index * chunkBytes;
    const length = Math.min(chunkBytes, lengthBytes - at);
    const chunk = chunkPool.take(Math.ceil(length / 4) * 4).fill(0, length);
    await checkpoints.read(manifest, tensor, {
      offsetBytes: offsetBytes + at,
      lengthBytes: length,
      into: chunk.subarray(0, length),
      signal,
    });
    writeRange(device, range, chunk, at); // copies the chunk
    chunkPool.give(chunk);
  });
  return lengthBytes;
}
