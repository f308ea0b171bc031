/**
 * What an allocator is: units with the widths they may have in, one width for each out. Pure.
 *
 * A choice states what a width costs and what it loses, so that errors are measured once and any
 * number of targets follow. The result is plain data and explains itself.
 */
import { assertArgument, fail } from '@vramkit/core';
import type { CodeBits } from '../matrix-layout.js';

/** A width that a unit may have. */
export interface WidthChoice {
  readonly bits: CodeBits;
  /** Bytes as stored: codes, scales, minimums, padding. */
  readonly sizeBytes: number;
  /** Measured error at this width; allocators that go by score alone ignore it. */
  readonly error: number;
}

/** What gets one width. */
export interface AllocationUnit {
  readonly id: string;
  /** Layer, for allocators whose scope is a layer. */
  readonly layer: number;
  /** Number of weights. */
  readonly weights: number;
  /** From a scorer; higher means more bits. */
  readonly score: number;
  /** At least one, by rising width. */
  readonly choices: readonly WidthChoice[];
}

/** Chooses a width for each unit. */
export interface Allocator {
  readonly name: string;
  /**
   * Index into `choices` of each unit, in order.
   * @throws VramError `invalid-argument` where a target cannot be met, with what can.
   */
  allocate(units: readonly AllocationUnit[]): readonly number[];
}

/** The choice of each unit. */
export interface AllocatedUnit extends WidthChoice {
  readonly id: string;
  readonly layer: number;
  readonly score: number;
}

/** Widths of all units; plain data. */
export interface Allocation {
  readonly allocator: string;
  readonly units: readonly AllocatedUnit[];
  readonly sizeBytes: number;
  readonly error: number;
  /** 8 * sizeBytes over the number of weights: scales, minimums and padding counted. */
  readonly bitsPerWeight: number;
}

/** A byte target of this many bits a weight, everything counted. */
export function bytesForBits(units: readonly AllocationUnit[], averageBits: number): number {
  return Math.floor((units.reduce((sum, { weights }) => sum + weights, 0) * averageBits) / 8);
}

/** Least and most bytes that the units' choices can take. */
export function reachableBytes(units: readonly AllocationUnit[]): {
  readonly leastBytes: number;
  readonly mostBytes: number;
} {
  const sizes = units.map(({ choices }) => choices.map(({ sizeBytes }) => sizeBytes));
  return {
    leastBytes: sizes.reduce((sum, each) => sum + Math.min(...each), 0),
    mostBytes: sizes.reduce((sum, each) => sum + Math.max(...each), 0),
  };
}

/** Refuses a target below the least that can be reached. @throws VramError `invalid-argument`. */
export function checkTarget(units: readonly AllocationUnit[], budgetBytes: number): void {
  const { leastBytes, mostBytes } = reachableBytes(units);
  if (budgetBytes >= leastBytes) return;
  fail(
    'invalid-argument',
    `${budgetBytes} B cannot be reached: these units take ${leastBytes} to ${mostBytes} B`,
    { budgetBytes, leastBytes, mostBytes },
  );
}

/**
 * Runs an allocator and sums up its choices.
 * @throws VramError `invalid-argument` for no units, units without choices or a repeated id; what
 * the allocator throws.
 */
export function allocateBits(units: readonly AllocationUnit[], allocator: Allocator): Allocation {
  assertArgument(units.length > 0, 'there are no units to allocate');
  assertArgument(new Set(units.map(({ id }) => id)).size === units.length, 'ids are not unique');
  for (const { id, choices } of units) {
    assertArgument(choices.length > 0, `'${id}' may have no width`, { id });
  }
  const chosen = allocator.allocate(units);
  const allocated = units.map(({ id, layer, score, choices }, i): AllocatedUnit => {
    const choice = choices[chosen[i] ?? -1];
    if (choice === undefined) fail('invariant', `${allocator.name} chose nothing for '${id}'`);
    return { id, layer, score, ...choice };
  });
  const sizeBytes = allocated.reduce((sum, each) => sum + each.sizeBytes, 0);
  const weights = units.reduce((sum, each) => sum + each.weights, 0);
  return {
    allocator: allocator.name,
    units: allocated,
    sizeBytes,
    error: allocated.reduce((sum, each) => sum + each.error, 0),
    bitsPerWeight: (8 * sizeBytes) / weights,
  };
}
