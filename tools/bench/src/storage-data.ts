/** What the benchmark of stores moves, and how fast it was moved. */
import type { Measure } from './measure.js';

/** Bytes. */
export const mebibyte = 2 ** 20;

/** Bytes of a fixed sequence; nothing compresses or deduplicates them. */
export function testData(sizeBytes: number): Uint8Array {
  const words = new Uint32Array(sizeBytes / 4);
  for (let i = 0, state = 1; i < words.length; i += 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[i] = state;
  }
  return new Uint8Array(words.buffer);
}

/** A size as a case is called. */
export function sizeName(sizeBytes: number): string {
  return sizeBytes < mebibyte ? `${sizeBytes / 1024} KiB` : `${sizeBytes / mebibyte} MiB`;
}

/** Times work that moves so many bytes; gives MiB/s. */
export function movedPerSecond(sizeBytes: number, work: () => Promise<unknown>): Measure {
  return async () => {
    const begin = performance.now();
    await work();
    return sizeBytes / mebibyte / ((performance.now() - begin) / 1000);
  };
}
