/**
 * Proves on a device that allocations are memory of their own: writes a pattern to each range, then
 * reads all of them back.
 */
import { allocate, type Allocation, type MemoryResource } from '../resource.js';
import { compareArrays } from './compare-arrays.js';
import { seededRandom } from './seeded-random.js';

/** GPUBufferUsage.MAP_READ | COPY_DST and GPUMapMode.READ, which Node has no globals for. */
const READBACK_USAGE = 0x1 | 0x8;
const MAP_MODE_READ = 0x1;
const RANGE_WORDS = [1, 3, 64, 65, 100, 255, 256, 257];

/** Writes words to a range of the device. */
export function writeWords(
  gpuDevice: GPUDevice,
  range: Allocation,
  words: Uint32Array<ArrayBuffer>,
): void {
  gpuDevice.queue.writeBuffer(range.buffer, range.offsetBytes, words);
}

/** Reads `count` words from the start of a range. */
export async function readWords(
  gpuDevice: GPUDevice,
  range: Allocation,
  count: number,
): Promise<Uint32Array<ArrayBuffer>> {
  const size = count * 4;
  const staging = gpuDevice.createBuffer({ label: 'read words', size, usage: READBACK_USAGE });
  try {
    const encoder = gpuDevice.createCommandEncoder();
    encoder.copyBufferToBuffer(range.buffer, range.offsetBytes, staging, 0, size);
    gpuDevice.queue.submit([encoder.finish()]);
    await staging.mapAsync(MAP_MODE_READ);
    return new Uint32Array(staging.getMappedRange().slice(0));
  } finally {
    staging.destroy();
  }
}

/**
 * Allocates, writes, frees, allocates again, and compares everything that is live with what was
 * written. Needs room for 8 KiB; frees what it took.
 * @throws Error where a range does not hold what was written to it.
 */
export async function checkDistinctMemory(
  resource: MemoryResource,
  gpuDevice: GPUDevice,
): Promise<void> {
  const random = seededRandom(7);
  const live = new Map<Allocation, Uint32Array<ArrayBuffer>>();
  const take = (wordCount: number, index: number): void => {
    const label = `range ${index}`;
    const range = allocate(resource, { sizeBytes: wordCount * 4, kind: 'staging', label });
    const words = Uint32Array.from({ length: wordCount }, () => random.uint32());
    live.set(range, words);
    writeWords(gpuDevice, range, words);
  };
  RANGE_WORDS.forEach(take);
  for (const range of [...live.keys()].filter((_range, index) => index % 2 === 0)) {
    live.delete(range);
    resource.free(range);
  }
  // Reused memory is written after the survivors, so an overlap shows in them.
  RANGE_WORDS.slice(0, 4).forEach(take);
  for (const [range, words] of live) {
    compareArrays(await readWords(gpuDevice, range, words.length), words, { label: range.label });
    resource.free(range);
  }
}
