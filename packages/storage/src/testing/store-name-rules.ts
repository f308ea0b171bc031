/** Rules about names: which are taken, which are refused, and how they are listed. */
import { compareKeys } from '../blob-key.js';
import { testBytes, type StoreRule } from './store-test.js';

/** All characters of a key between two codes, in names of 16. */
function namesOf(first: number, last: number): string[] {
  const characters = Array.from({ length: last - first + 1 }, (_, i) => first + i)
    .map((code) => String.fromCodePoint(code))
    .filter((character) => character !== '/' && character !== '\\');
  return Array.from({ length: Math.ceil(characters.length / 16) }, (_, i) =>
    characters.slice(16 * i, 16 * (i + 1)).join(''),
  );
}

const ODD_NAMES = [
  ...namesOf(0x20, 0x7e), // all of ASCII that a key can have
  ...namesOf(0xa0, 0xff),
  'a',
  'A',
  'with space',
  ' leading and trailing ',
  'dots.in..it',
  '...',
  '.hidden',
  '-dash',
  '~tilde',
  '!"#$%&\'()*+,-.',
  ':;<=>?@[]^_`{|}',
  '100%',
  '%2F%2e%2E',
  'a+b',
  'ünïcödé',
  '日本語',
  '😀',
  '\u{fffd}',
  'x'.repeat(200),
  "'; DROP TABLE blob; --",
  '$(touch x)',
];

/** Names. */
export function registerNames(rule: StoreRule): void {
  rule('takes names of every legal character', async (test) => {
    for (const [index, name] of ODD_NAMES.entries()) {
      await test.put(`odd/${name}`, testBytes(10 + index, index));
    }
    for (const [index, name] of ODD_NAMES.entries()) {
      const bytes = await test.read(`odd/${name}`);
      test.sameBytes(JSON.stringify(name), bytes, testBytes(10 + index, index));
    }
    const expected = ODD_NAMES.map((name) => `odd/${name}`).sort(compareKeys);
    test.same('names', await test.names(), expected);
    for (const name of ODD_NAMES) await test.store.delete(test.key(`odd/${name}`));
    test.same('names after deletion', await test.names(), []);
  });

  rule('refuses names that could leave the store, and touches nothing', async (test) => {
    const names = ['', '/', '..', '.', 'a/../b', '../x', 'a//b', '/a', 'a/', 'a/./b'];
    const worse = ['a\0b', 'a\nb', 'a\\b', '\ud800', '.vramkit-tmp/x', 'x'.repeat(201)];
    for (const name of [...names, ...worse, 'a/'.repeat(500) + 'a']) {
      const bad = test.store;
      await test.rejects('invalid-argument', bad.put(name, testBytes(3)));
      await test.rejects('invalid-argument', bad.head(name));
      await test.rejects('invalid-argument', bad.delete(name));
      const get = async (): Promise<void> => {
        for await (const chunk of bad.get(name)) test.same('bytes', chunk, undefined);
      };
      await test.rejects('invalid-argument', get());
    }
    test.same('names', await test.names(), []);
  });
}

/** Listing. */
export function registerListing(rule: StoreRule, pageKeys: number): void {
  const collect = async (list: AsyncIterable<{ key: string }>): Promise<string[]> => {
    const keys: string[] = [];
    for await (const { key } of list) keys.push(key);
    return keys;
  };

  rule('lists what begins with a prefix, in order, with sizes and versions', async (test) => {
    const names = ['b/2', 'b/10', 'b.x', 'b0', 'a', 'c/d/e/f', 'c/d/g', '\u{ff5e}', '😀'];
    for (const [index, name] of names.entries()) await test.put(name, testBytes(index));
    test.same('all', await test.names(), [...names].sort(compareKeys));
    test.same('b', await test.names('b'), ['b.x', 'b/10', 'b/2', 'b0']);
    test.same('b/', await test.names('b/'), ['b/10', 'b/2']);
    test.same('b/1', await test.names('b/1'), ['b/10']);
    test.same('c/d/', await test.names('c/d/'), ['c/d/e/f', 'c/d/g']);
    test.same('nothing', await test.names('nothing/here'), []);
    for await (const info of test.store.list(test.key('b/'))) {
      test.same('what a list tells', info, await test.store.head(info.key));
    }
    await test.rejects('invalid-argument', collect(test.store.list('../')));
  });

  rule('lists more than a page, goes on after a key, and stops at a limit', async (test) => {
    const names = Array.from(
      { length: pageKeys },
      (_, i) => `p${i % 7}/${String(i).padStart(5, '0')}`,
    );
    const width = 32;
    for (let at = 0; at < names.length; at += width) {
      await Promise.all(names.slice(at, at + width).map((name) => test.put(name, testBytes(1))));
    }
    const sorted = names.map((name) => test.key(name)).sort(compareKeys);
    test.same('all', await collect(test.store.list(test.key(''))), sorted);
    for (const at of [0, 1, Math.floor(sorted.length / 2), sorted.length - 1]) {
      const startAfter = sorted[at] ?? '';
      const rest = await collect(test.store.list(test.key(''), { startAfter }));
      test.same(`after ${startAfter}`, rest, sorted.slice(at + 1));
      const some = await collect(test.store.list(test.key(''), { startAfter, limit: 3 }));
      test.same(`three after ${startAfter}`, some, sorted.slice(at + 1, at + 4));
    }
    const none = await collect(test.store.list(test.key(''), { limit: 0 }));
    test.same('none', none, []);
  });
}
