/**
 * Scores that are computed once: under a digest of all that they depend on.
 *
 * A key is the SHA-256 of the scorer's name, what the caller says of its options, and the unit's
 * tensors: names, shapes, weights, importance and moments, to the bit. So a changed weight or
 * option is another key, and a map that was written to disk as JSON can be used for any model.
 */
import { assertArgument } from '@vramkit/core';
import type { LoadedUnit, Scorer } from './scorer.js';

/** Where scores are kept; a `Map` is one. */
export interface ScoreStore {
  /** The score of a key, or `undefined`. */
  get(key: string): number | undefined;
  /** Keeps a score. */
  set(key: string, score: number): unknown;
}

/** The digest of a unit and of whatever else a number depends on; 64 hexadecimal digits. */
export async function unitDigest(unit: LoadedUnit, what: string): Promise<string> {
  const text = new TextEncoder();
  const parts: Uint8Array[] = [];
  const shapes = unit.tensors.map((tensor) => {
    const { name, rows, columns, values, importance, moments } = tensor;
    const arrays = [values, importance, moments].map((array) => {
      if (array === undefined) return -1;
      parts.push(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
      return array.byteLength;
    });
    return [name, rows, columns, ...arrays];
  });
  // Sizes come first, so that no two units of other parts give the same bytes.
  parts.unshift(text.encode(JSON.stringify([what, unit.id, unit.layer, shapes])));
  const digests = await Promise.all(parts.map((part) => sha256(part)));
  return hexadecimal(await sha256(Uint8Array.from(digests.flatMap((digest) => [...digest]))));
}

async function sha256(bytes: Uint8Array): Promise<Uint8Array> {
  // Typings separate ArrayBuffer from SharedArrayBuffer; a digest reads from either.
  const digest = await globalThis.crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>);
  return new Uint8Array(digest);
}

function hexadecimal(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * A scorer that asks `store` first.
 * @param options Whatever else the score depends on, such as the seed of probes or the text of a
 * calibration loss. Default: nothing but the scorer's name.
 * @throws VramError `invalid-argument` from `score` where a stored number is not finite.
 */
export function cachedScorer(scorer: Scorer, store: ScoreStore, options = ''): Scorer {
  return {
    name: scorer.name,
    score: async (unit) => {
      const key = await unitDigest(unit, JSON.stringify([scorer.name, options]));
      const known = store.get(key);
      if (known !== undefined) {
        assertArgument(Number.isFinite(known), `the stored score of '${unit.id}' is ${known}`);
        return known;
      }
      const score = await scorer.score(unit);
      store.set(key, score);
      return score;
    },
  };
}
