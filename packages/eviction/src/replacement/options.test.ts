/** Options and values that replacement policies refuse, and ids of every kind. */
import { describe, expect, it } from 'vitest';
import { gdsf } from './gdsf.js';
import { lru } from './lru.js';
import { s3Fifo } from './s3-fifo.js';
import { anyIds, denseIds } from './slot-index.js';
import { slru } from './slru.js';

const invalid: unknown = expect.objectContaining({ name: 'VramError', code: 'invalid-argument' });
const size = { sizeBytes: 4, reloadCost: 4 };

it('refuses shares out of range', () => {
  for (const protectedShare of [-0.1, 1.1, NaN])
    expect(() => slru({ protectedShare })).toThrow(invalid);
  for (const smallShare of [0, 1, -1, NaN]) expect(() => s3Fifo({ smallShare })).toThrow(invalid);
});

it('gdsf refuses a cost that is no number to compare by, and holds nothing of it', () => {
  const policy = gdsf<string>();
  for (const reloadCost of [-1, NaN, Infinity]) {
    expect(() => policy.inserted('a', { sizeBytes: 4, reloadCost })).toThrow(invalid);
  }
  policy.check();
  policy.inserted('a', size);
  expect(policy.size).toBe(1);
});

it('gdsf keeps the dear and the small', () => {
  const policy = gdsf<string>();
  policy.inserted('large', { sizeBytes: 1000, reloadCost: 10 });
  policy.inserted('small', { sizeBytes: 10, reloadCost: 10 });
  policy.inserted('dear', { sizeBytes: 1000, reloadCost: 5000 });
  expect(policy.chooseVictim(() => true)).toBe('large');
  expect(policy.chooseVictim((id) => id !== 'large')).toBe('small');
});

describe('ids', () => {
  it('dense ones are integers in range', () => {
    const policy = lru({ ids: denseIds(8) });
    for (const id of [-1, 8, 0.5, NaN, Infinity]) {
      expect(() => policy.inserted(id, size)).toThrow(invalid);
      expect(() => policy.touched(id)).toThrow(invalid);
    }
    policy.inserted(7, size);
    expect(policy.chooseVictim(() => true)).toBe(7);
    for (const count of [0, -1, 1.5]) expect(() => denseIds(count)).toThrow(invalid);
  });

  it('any ones are whatever a Map tells apart', () => {
    const policy = lru<unknown>();
    const ids = ['a', 1, '1', undefined, null, NaN, {}, Symbol('s')];
    for (const id of ids) policy.inserted(id, size);
    for (const id of ids) expect(() => policy.inserted(id, size)).toThrow(invalid);
    policy.check();
    for (const id of ids) policy.touched(id);
    for (const id of ids) {
      expect(policy.chooseVictim(() => true)).toBe(id);
      policy.removed(id, 'capacity');
    }
    expect(policy.size).toBe(0);
  });

  it('a shared index gives the slots that a cache may keep values by', () => {
    const ids = anyIds<string>();
    const policy = lru<string>({ ids });
    policy.inserted('a', size);
    policy.inserted('b', size);
    expect(new Set([ids.find('a'), ids.find('b'), ids.find('c')]).size).toBe(3);
    expect(ids.find('c')).toBe(0);
    const slot = ids.find('a');
    policy.removed('a', 'capacity');
    expect(ids.find('a')).toBe(0);
    policy.inserted('c', size);
    expect(ids.find('c')).toBe(slot);
  });
});
