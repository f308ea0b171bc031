/** Medians, ranges, and the order in which sides are measured. */
import { describe, expect, it } from 'vitest';
import fc from 'fast-check';
import { measureInTurn, median, summarize } from './measure.js';

describe('summarize', () => {
  it('takes the middle figure, or the mean of the middle two', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(summarize([5, 7, 5])).toEqual({ median: 5, min: 5, max: 7, runs: 3 });
  });

  it('leaves as many figures above as below, whatever the order', () => {
    const figures = fc.array(fc.double({ min: -1e9, max: 1e9, noNaN: true }), { minLength: 1 });
    fc.assert(
      fc.property(figures, (values) => {
        const before = [...values];
        const middle = median(values);
        expect(values).toEqual(before);
        const above = values.filter((value) => value > middle).length;
        const below = values.filter((value) => value < middle).length;
        expect(Math.max(above, below)).toBeLessThanOrEqual(values.length / 2);
      }),
    );
  });

  it('rejects an empty list and figures that are not finite', () => {
    expect(() => median([])).toThrow(RangeError);
    expect(() => summarize([1, Number.NaN])).toThrow('NaN');
    expect(() => summarize([1, Infinity])).toThrow('Infinity');
  });
});

describe('measureInTurn', () => {
  it('runs each side once a round and starts each round with another side', async () => {
    const order: string[] = [];
    const side = (name: string) => () => {
      order.push(name);
      return Promise.resolve(order.length);
    };
    const measured = await measureInTurn(
      { ours: side('ours'), peers: { a: side('a'), b: side('b') } },
      { runs: 5, warmUps: 1 },
    );
    const rounds = Array.from({ length: 6 }, (_, round) => order.slice(round * 3, round * 3 + 3));
    for (const round of rounds) expect([...round].sort()).toEqual(['a', 'b', 'ours']);
    expect(rounds.map(([first]) => first)).toEqual(['ours', 'ours', 'a', 'b', 'ours', 'a']);
    expect(measured.ours.runs).toBe(5);
    expect(measured.peers['a']?.runs).toBe(5);
    expect(measured.failures).toEqual({});
  });

  it('does not count the warm-up', async () => {
    const figures = [1000, 1, 2, 3, 4, 5];
    const ours = () => Promise.resolve(figures.shift() ?? 0);
    expect((await measureInTurn({ ours })).ours).toEqual({ median: 3, min: 1, max: 5, runs: 5 });
  });

  it('leaves out a peer that fails, with its reason, and asks it no more', async () => {
    let asked = 0;
    const broken = () => {
      asked += 1;
      if (asked < 3) return Promise.resolve(1);
      return Promise.reject(new Error('cut after 5 s'));
    };
    const strange = () => Promise.resolve(Number.NaN);
    const ours = () => Promise.resolve(1);
    const measured = await measureInTurn({ ours, peers: { broken, strange, sound: ours } });
    expect(Object.keys(measured.peers)).toEqual(['sound']);
    expect(measured.failures['broken']).toBe('cut after 5 s');
    expect(measured.failures['strange']).toContain('NaN');
    expect(asked).toBe(3);
  });

  it('fails with the subject, and where a median would rest on too few runs', async () => {
    const ours = () => Promise.reject(new Error('device lost'));
    await expect(measureInTurn({ ours })).rejects.toThrow('device lost');
    const sound = () => Promise.resolve(1);
    await expect(measureInTurn({ ours: sound }, { runs: 4 })).rejects.toThrow(RangeError);
  });
});
