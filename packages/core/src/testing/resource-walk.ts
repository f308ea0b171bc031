/**
 * A random walk over a memory resource beside a model that is a plain list, compared after each
 * step.
 */
import { MEMORY_KINDS, paddedBytes, type Allocation } from '../resource.js';
import { zeroByKind } from '../resources/ledger.js';
import type { RuleTest } from './rule-test.js';
import { seededRandom, type SeededRandom } from './seeded-random.js';

interface WalkOptions {
  readonly capacityBytes: number;
  readonly steps: number;
  readonly seed: number;
}

/** Bytes of the largest request where the resource has no limit. */
const UNLIMITED_MAX_BYTES = 64 * 1024;

/** Allocates and frees at random; frees everything at the end. */
export function randomWalk(test: RuleTest, options: WalkOptions): void {
  const { capacityBytes, steps, seed } = options;
  const random = seededRandom(seed);
  const maxBytes = Number.isFinite(capacityBytes) ? capacityBytes / 3 : UNLIMITED_MAX_BYTES;
  const live: Allocation[] = [];
  for (let step = 0; step < steps; step += 1) {
    const grows = live.length === 0 || random.uniform() < 0.6;
    if (grows) allocateOne(test, random, maxBytes, live, capacityBytes);
    else freeOne(test, random, live);
    compare(test, live);
  }
  while (live.length > 0) freeOne(test, random, live);
  compare(test, live);
  test.empty();
}

function allocateOne(
  test: RuleTest,
  random: SeededRandom,
  maxBytes: number,
  live: Allocation[],
  capacityBytes: number,
): void {
  // Sizes spread over magnitudes: small and large ones are equally frequent.
  const sizeBytes = Math.floor(maxBytes ** random.uniform()) - 1;
  const kind = MEMORY_KINDS[random.integer(0, MEMORY_KINDS.length - 1)] ?? 'kv';
  const given = test.resource.tryAllocate({ sizeBytes, kind, label: `walk ${sizeBytes}` });
  if (given === undefined) {
    test.same('only a resource with a limit refuses', Number.isFinite(capacityBytes), true);
    return;
  }
  const overlapped = live.filter((other) => overlap(given, other)).map(({ label }) => label);
  if (overlapped.length > 0) test.same(`ranges under '${given.label}'`, overlapped, []);
  live.push(given);
}

function freeOne(test: RuleTest, random: SeededRandom, live: Allocation[]): void {
  const [victim] = live.splice(random.integer(0, live.length - 1), 1);
  if (victim !== undefined) test.resource.free(victim);
}

function compare(test: RuleTest, live: readonly Allocation[]): void {
  const byKind = zeroByKind();
  for (const { kind, sizeBytes } of live) byKind[kind] += sizeBytes;
  const { liveBytesByKind, allocationCount } = test.stats();
  test.same('live bytes by kind', liveBytesByKind, byKind);
  test.same('allocations', allocationCount, live.length);
}

function overlap(a: Allocation, b: Allocation): boolean {
  if (a.buffer !== b.buffer) return false;
  const endA = a.offsetBytes + paddedBytes(a.sizeBytes);
  const endB = b.offsetBytes + paddedBytes(b.sizeBytes);
  return a.offsetBytes < endB && b.offsetBytes < endA;
}
