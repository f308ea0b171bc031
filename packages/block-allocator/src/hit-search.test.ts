/**
 * Hit search over groups: behaviours 33 and 34 as tables of what is cached, and against the plain
 * definition for random patterns.
 */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { HitSearch } from './hit-search.js';
import { groupRule, type KvGroup } from './kv-groups.js';

/** Longest hit where `rows[group][block]` says whether a block of the cache ends a cached one. */
function longest(groups: readonly KvGroup[], base: number, rows: readonly boolean[][]): number {
  const rules = groups.map((group) => groupRule(group, base));
  const count = rows[0]?.length ?? 0;
  return new HitSearch(rules, base).longest(count, (index, group) => rows[group]?.[index] === true);
}

const row = (pattern: string): boolean[] => [...pattern].map((each) => each === '#');

describe('HitSearch', () => {
  it.each([
    ['..........', 0],
    ['#########.', 9],
    ['.........#', 0],
    ['........##', 10],
    ['##.......#', 2],
    ['##..##...#', 6],
    ['#.........', 1], // the window reaches the start
    ['##########', 10],
  ])('behaviour 33: window of 2 blocks and a token, cached %s: %i blocks', (pattern, expected) => {
    // Token 4n sees 4n - 5 .. 4n - 1: a block and a token, so two blocks are needed.
    expect(longest([{ kind: 'window', windowTokens: 6 }], 4, [row(pattern)])).toBe(expected);
  });

  it.each([
    ['..........', 10], // ten blocks end where a chunk begins, of which nothing is seen
    ['.........', 8],
    ['........#', 9],
    ['....#', 5],
    ['.....', 4],
  ])('behaviour 33: chunks of 2 blocks, cached %s: %i blocks', (pattern, expected) => {
    expect(longest([{ kind: 'chunked', chunkTokens: 8 }], 4, [row(pattern)])).toBe(expected);
  });

  it('behaviour 33: sinks must be there as well as the window', () => {
    const groups = [{ kind: 'window', windowTokens: 6, sinkTokens: 5 }] as const;
    expect(longest(groups, 4, [row('........##')])).toBe(0);
    expect(longest(groups, 4, [row('#.......##')])).toBe(1);
    expect(longest(groups, 4, [row('##......##')])).toBe(10);
  });

  it('behaviour 34: groups hit together; blocks of different sizes align to the larger', () => {
    const full = { kind: 'full' } as const;
    const window = { kind: 'window', windowTokens: 4 } as const;
    expect(longest([full, window], 4, [row('######....'), row('..##.##...')])).toBe(6);
    expect(longest([full, window], 4, [row('######....'), row('..##......')])).toBe(4);
    expect(longest([full, window], 4, [row('######....'), row('.......###')])).toBe(0);
    const wide = { kind: 'full', blockSize: 8 } as const;
    // A wide block ends with every second block of the cache.
    expect(longest([full, wide], 4, [row('#######...'), row('.#.#.#.#.#')])).toBe(6);
    expect(longest([full, wide], 4, [row('#####.....'), row('.#.#.#.#.#')])).toBe(4);
  });

  it('equals the definition: the longest length whose visible blocks are all there', () => {
    const group: fc.Arbitrary<KvGroup> = fc.oneof(
      fc.constant<KvGroup>({ kind: 'full' }),
      fc.record({
        kind: fc.constant('window' as const),
        windowTokens: fc.integer({ min: 4, max: 14 }),
        sinkTokens: fc.nat(3),
      }),
      fc.record({
        kind: fc.constant('chunked' as const),
        chunkTokens: fc.integer({ min: 1, max: 12 }),
      }),
    );
    const rows = fc.array(fc.array(fc.boolean(), { minLength: 12, maxLength: 12 }), {
      minLength: 3,
      maxLength: 3,
    });
    const scales = fc.tuple(fc.constantFrom(1, 2), fc.constantFrom(1, 3), fc.constant(1));
    fc.assert(
      fc.property(fc.tuple(group, group, group), scales, rows, (kinds, sizes, present) => {
        const base = 3;
        const groups = kinds.map((kind, index) => ({
          ...kind,
          blockSize: base * (sizes[index] ?? 1),
        }));
        const isHit = (length: number): boolean =>
          groups.every((rule, index) => {
            const blockSize = rule.blockSize;
            const position = length * base;
            if (position % blockSize > 0) return false;
            const sinks =
              rule.kind === 'window' ? Math.ceil((rule.sinkTokens ?? 0) / blockSize) : 0;
            const first = groupRule(rule, base).firstVisible(position);
            for (let block = 0; block < position / blockSize; block++) {
              const isSeen = block < sinks || (block + 1) * blockSize > first;
              const end = ((block + 1) * blockSize) / base - 1;
              if (isSeen && present[index]?.[end] !== true) return false;
            }
            return true;
          });
        let expected = 12;
        while (expected > 0 && !isHit(expected)) expected--;
        expect(longest(groups, base, present)).toBe(expected);
      }),
      { numRuns: 2000 },
    );
  });
});
