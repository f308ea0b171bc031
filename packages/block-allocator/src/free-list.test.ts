/** The free list: order, membership, and what it refuses. */
import { describe, expect, it } from 'vitest';
import { FreeList } from './free-list.js';

const error = (code: string): unknown => expect.objectContaining({ name: 'VramError', code });

function pop(list: FreeList, count: number): number[] {
  const out = new Uint32Array(count);
  list.popMany(count, out, 0, 0);
  list.check();
  return [...out];
}

describe('FreeList', () => {
  it('behaviour 1: starts in id order, and its length is what it links at all times', () => {
    const list = new FreeList(6);
    expect([...list.toArray()]).toEqual([1, 2, 3, 4, 5]);
    expect(list.length).toBe(5);
    pop(list, 2);
    list.append(2);
    list.remove(4);
    list.check();
    expect([...list.toArray()]).toEqual([3, 5, 2]);
    expect(list.length).toBe(3);
  });

  it('behaviour 2: taking the first clears its links; an empty list throws', () => {
    const list = new FreeList(3);
    expect(pop(list, 1)).toEqual([1]);
    expect(list.has(1)).toBe(false);
    expect(() => list.remove(1)).toThrow(error('invariant'));
    expect(pop(list, 1)).toEqual([2]);
    expect(() => pop(list, 1)).toThrow(error('out-of-memory'));
    list.check();
  });

  it('behaviour 3: removing a middle id relinks its neighbours; a non-member throws', () => {
    const list = new FreeList(6);
    list.remove(3);
    list.check();
    expect([...list.toArray()]).toEqual([1, 2, 4, 5]);
    list.remove(1);
    list.remove(5);
    list.check();
    expect([...list.toArray()]).toEqual([2, 4]);
    for (const id of [0, 3, 6, -1, 1.5, NaN]) {
      expect(list.has(id)).toBe(false);
      expect(() => list.remove(id)).toThrow(error('invariant'));
    }
    expect([...list.toArray()]).toEqual([2, 4]);
  });

  it('behaviour 4: appending keeps order; taking none is a no-op; members cannot join', () => {
    const list = new FreeList(5);
    pop(list, 4);
    for (const id of [3, 1, 4]) list.append(id);
    expect(pop(list, 0)).toEqual([]);
    expect([...list.toArray()]).toEqual([3, 1, 4]);
    for (const id of [0, 1, 5, -1, 0.5]) {
      expect(() => list.append(id)).toThrow(error('invariant'));
    }
    list.check();
    expect([...list.toArray()]).toEqual([3, 1, 4]);
  });

  it('behaviour 5: taking n at once equals taking one n times, and unlinks all of them', () => {
    const one = new FreeList(9);
    const many = new FreeList(9);
    const singles = [1, 2, 3, 4, 5].flatMap(() => pop(one, 1));
    expect(pop(many, 5)).toEqual(singles);
    expect([...many.toArray()]).toEqual([...one.toArray()]);
    for (const id of singles) expect(many.has(id)).toBe(false);
    expect(() => pop(many, 4)).toThrow(error('out-of-memory'));
    expect([...many.toArray()]).toEqual([6, 7, 8]);
  });

  it('refuses sizes that leave no id', () => {
    for (const count of [1, 0, -1, 2.5, 2 ** 31]) {
      expect(() => new FreeList(count)).toThrow(error('invalid-argument'));
    }
  });
});
