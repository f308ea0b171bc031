/** Scratch grows by doubling, keeps what batches may still name, and gives everything back. */
import { hostResource } from '@vramkit/core/testing';
import { expect, it } from 'vitest';
import { AttentionScratch } from './attention-scratch.js';

it('grows to at least twice the size and keeps the smaller range until disposal', () => {
  const memory = hostResource();
  const scratch = new AttentionScratch(memory, 'scratch', 1000);
  const first = scratch.reserve(100);
  expect(scratch.reserve(40)).toBe(first);
  expect(scratch.reserve(101).sizeBytes).toBe(200);
  expect(scratch.reserve(900).sizeBytes).toBe(900);
  expect(scratch.sizeBytes).toBe(1200);
  expect(memory.stats().liveBytesByKind.activations).toBe(1200);
  scratch.dispose();
  scratch.dispose();
  expect(memory.stats().liveBytes).toBe(0);
});

it('fails with its state unchanged where a binding or memory is too small', () => {
  const memory = hostResource({ capacityBytes: 256 });
  const scratch = new AttentionScratch(memory, 'scratch', 1000);
  const range = scratch.reserve(100);
  expect(() => scratch.reserve(1001)).toThrow(expect.objectContaining({ code: 'unsupported' }));
  expect(() => scratch.reserve(999)).toThrow(expect.objectContaining({ code: 'out-of-memory' }));
  expect(scratch.reserve(100)).toBe(range);
  expect(scratch.sizeBytes).toBe(100);
  scratch.dispose();
});
