/**
 * Traces of reads for benchmarks of caches: seeded, so that everybody's run reads the same keys.
 *
 * - `zipf`: independent reads, key of rank r with probability proportional to 1 / r^0.99 (the
 *   exponent of YCSB: Cooper and others, "Benchmarking Cloud Serving Systems with YCSB", SoCC
 *   2010). Keys of neighbouring ranks are spread over the key space.
 * - `scan-mixed`: the same reads, interrupted after every 4 capacities by a scan: 2 capacities of
 *   consecutive keys that no other read touches and that the next scans do not repeat until the
 *   key range of scans, 20 capacities, is used up. A third of all reads belong to scans.
 */

/** A trace. */
export interface CacheTrace {
  readonly name: string;
  /** Key of each read, in `[0, keyCount)`. */
  readonly keys: Uint32Array;
  /** Keys that may occur. */
  readonly keyCount: number;
}

/** Options of the traces. */
export interface TraceOptions {
  /** Reads. */
  readonly length: number;
  /** Distinct keys of the Zipf part. */
  readonly keyCount: number;
  readonly seed: number;
}

const EXPONENT = 0.99;

/** Independent reads of Zipf's law. */
export function zipfTrace({ length, keyCount, seed }: TraceOptions): CacheTrace {
  const uniform = uniformStream(seed);
  const cumulative = new Float64Array(keyCount);
  let total = 0;
  for (let rank = 0; rank < keyCount; rank++) {
    total += (rank + 1) ** -EXPONENT;
    cumulative[rank] = total;
  }
  const keyOf = shuffled(keyCount, seed + 1);
  const keys = new Uint32Array(length).map(() => {
    const point = uniform() * total;
    let [low, high] = [0, keyCount - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((cumulative[middle] ?? 0) <= point) low = middle + 1;
      else high = middle;
    }
    return keyOf[low] ?? 0;
  });
  return { name: 'zipf', keys, keyCount };
}

/** Reads of Zipf's law, interrupted by scans. */
export function scanMixedTrace(options: TraceOptions & { readonly capacity: number }): CacheTrace {
  const { length, keyCount, capacity } = options;
  const reads = zipfTrace(options).keys;
  const keys = new Uint32Array(length);
  const scanKeys = 20 * capacity;
  let [read, scanned] = [0, 0];
  for (let i = 0; i < length; i++) {
    const isScan = i % (6 * capacity) >= 4 * capacity;
    keys[i] = isScan ? keyCount + (scanned++ % scanKeys) : (reads[read++] ?? 0);
  }
  return { name: 'scan-mixed', keys, keyCount: keyCount + scanKeys };
}

/** 0 .. count - 1 in seeded order (Fisher and Yates). */
function shuffled(count: number, seed: number): Uint32Array {
  const uniform = uniformStream(seed);
  const order = Uint32Array.from({ length: count }, (_, index) => index);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(uniform() * (i + 1));
    [order[i], order[j]] = [order[j] ?? 0, order[i] ?? 0];
  }
  return order;
}

/** Numbers in [0, 1) from a seed: xorshift32 (Marsaglia, 2003), of a state that is not 0. */
function uniformStream(seed: number): () => number {
  let state = Math.imul(seed + 1, 0x9e37_79b1) | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
