/** Rules about one client: what goes in comes out, and what is wrong changes nothing. */
import { inParts } from '../blob-body.js';
import { compareKeys } from '../blob-key.js';
import type { BlobBody } from '../blob-store.js';
import { testBytes, type StoreRule } from './store-test.js';

/** Chunks of odd sizes, some of them empty, one at a time. */
async function* inOddChunks(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield new Uint8Array(0);
  for (let at = 0, size = 1; at < bytes.length; size = size * 3 + 1) {
    yield bytes.subarray(at, at + size);
    yield new Uint8Array(0);
    at += size;
  }
}

/** Bytes and sizes. */
export function registerBytes(rule: StoreRule): void {
  rule('gives back every byte value and size', async (test) => {
    for (const size of [0, 1, 255, 256, 4096, 65_537, 2 ** 20, 2 ** 20 + 1]) {
      const bytes = testBytes(size, size);
      const info = await test.put(`size-${size}`, bytes);
      test.same('size told by put', info.sizeBytes, size);
      test.sameBytes(`blob of ${size} B`, await test.read(`size-${size}`), bytes);
      test.same('head', await test.store.head(test.key(`size-${size}`)), info);
    }
  });

  rule('takes a body in chunks, and one larger than a part', async (test) => {
    const bytes = testBytes(9 * 2 ** 20 + 7);
    const info = await test.store.put(test.key('chunked'), inOddChunks(bytes));
    test.same('size', info.sizeBytes, bytes.length);
    test.sameBytes('blob', await test.read('chunked'), bytes);
    await test.store.put(test.key('sized'), inOddChunks(bytes), { sizeBytes: bytes.length });
    test.sameBytes('blob of a known size', await test.read('sized'), bytes);
    await test.store.put(test.key('none'), inOddChunks(new Uint8Array(0)));
    test.sameBytes('no bytes', await test.read('none'), new Uint8Array(0));
  });

  rule('gives chunks that the caller may change', async (test) => {
    const bytes = testBytes(1000);
    await test.put('owned', bytes);
    for await (const chunk of test.store.get(test.key('owned'))) chunk.fill(0);
    test.sameBytes('blob', await test.read('owned'), bytes);
  });
}

/** Parts of blobs. */
export function registerRanges(rule: StoreRule): void {
  rule('reads ranges, and refuses those that are not inside', async (test) => {
    const bytes = testBytes(3 * 2 ** 20 + 5);
    await test.put('ranged', bytes);
    const ranges = [
      [0, 1],
      [0, bytes.length],
      [1, 2],
      [2 ** 20 - 1, 2],
      [bytes.length - 1, 1],
      [7, 0],
      [bytes.length, 0],
      [100_001, 2 * 2 ** 20],
    ] as const;
    for (const [offsetBytes, lengthBytes] of ranges) {
      const part = await test.read('ranged', { offsetBytes, lengthBytes });
      const expected = bytes.subarray(offsetBytes, offsetBytes + lengthBytes);
      test.sameBytes(`${lengthBytes} B at ${offsetBytes}`, part, expected);
    }
    const tail = await test.read('ranged', { offsetBytes: bytes.length - 10 });
    test.sameBytes('the last 10 B', tail, bytes.subarray(-10));
    for (const range of [
      { offsetBytes: bytes.length + 1 },
      { offsetBytes: bytes.length - 1, lengthBytes: 2 },
      { lengthBytes: bytes.length + 1 },
      { offsetBytes: -1 },
      { offsetBytes: 0.5 },
      { lengthBytes: -1 },
    ]) {
      await test.rejects('invalid-argument', test.read('ranged', range));
    }
  });

  rule('lets a reader leave early', async (test) => {
    const bytes = testBytes(2 * 2 ** 20);
    await test.put('left', bytes);
    for await (const chunk of test.store.get(test.key('left'))) {
      test.same('a first chunk', chunk.length > 0, true);
      break;
    }
    test.sameBytes('blob', await test.read('left'), bytes);
  });
}

/** Absence, replacement, deletion. */
export function registerLifetime(rule: StoreRule): void {
  rule('tells a missing blob by value, and deletes it without an error', async (test) => {
    test.same('head', await test.store.head(test.key('missing')), undefined);
    await test.store.delete(test.key('missing'));
    await test.store.delete(test.key('missing/below'));
    await test.rejects('not-found', test.read('missing'));
    await test.rejects('not-found', test.read('missing', { offsetBytes: 5, lengthBytes: 0 }));
    test.same('names', await test.names(), []);
  });

  rule('replaces a blob by a larger and by a smaller one', async (test) => {
    const versions = new Set<string>();
    for (const size of [1000, 3 * 2 ** 20, 10, 0]) {
      const bytes = testBytes(size, size + 1);
      versions.add((await test.put('replaced', bytes)).version);
      test.sameBytes(`${size} B`, await test.read('replaced'), bytes);
    }
    test.same('versions', versions.size, 4);
    test.same('names', await test.names(), ['replaced']);
  });

  rule('forgets a deleted blob, and takes its name again', async (test) => {
    await test.put('folder/gone', testBytes(5000));
    await test.store.delete(test.key('folder/gone'));
    test.same('head', await test.store.head(test.key('folder/gone')), undefined);
    await test.rejects('not-found', test.read('folder/gone'));
    await test.put('folder', testBytes(10));
    test.same('names', await test.names(), ['folder']);
  });

  rule('refuses a read of a version that was replaced', async (test) => {
    const { version } = await test.put('versioned', testBytes(100, 1));
    test.sameBytes('blob', await test.read('versioned', { version }), testBytes(100, 1));
    await test.put('versioned', testBytes(100, 2));
    await test.rejects('conflict', test.read('versioned', { version }));
    await test.rejects('conflict', test.read('versioned', { version, lengthBytes: 10 }));
  });

  rule('puts a key below another one, or refuses it', async (test) => {
    const { nestedKeys } = test.store.capabilities;
    await test.put('node', testBytes(5));
    if (nestedKeys) await test.put('node/leaf', testBytes(6));
    else await test.rejects('invalid-argument', test.put('node/leaf', testBytes(6)));
    test.sameBytes('node', await test.read('node'), testBytes(5));
    await test.put('branch/leaf', testBytes(7));
    if (nestedKeys) await test.put('branch', testBytes(8));
    else await test.rejects('invalid-argument', test.put('branch', testBytes(8)));
    test.sameBytes('leaf', await test.read('branch/leaf'), testBytes(7));
  });
}

/** A put that fails changes nothing. */
export function registerFailedPuts(rule: StoreRule): void {
  const old = testBytes(300_000, 3);
  const long = testBytes(9 * 2 ** 20, 4);
  async function* failing(): AsyncGenerator<Uint8Array> {
    yield* inParts(inOddChunks(long), 3 * 2 ** 20);
    throw new RangeError('the body failed');
  }
  const bodies: readonly (readonly [string, () => BlobBody, number | undefined])[] = [
    ['too short', () => inOddChunks(old), old.length + 1],
    ['too long', () => inOddChunks(old), old.length - 1],
    ['far too long', () => inOddChunks(long), 10],
  ];

  rule('rejects a body of another size than told, and keeps the old bytes', async (test) => {
    await test.put('kept', old);
    for (const [what, body, sizeBytes] of bodies) {
      const put = test.store.put(test.key('kept'), body(), { sizeBytes });
      await test.rejects('invalid-argument', put);
      test.sameBytes(`blob after a body ${what}`, await test.read('kept'), old);
    }
    test.same('names', await test.names(), ['kept']);
  });

  rule('passes on what a body throws, and keeps the old bytes', async (test) => {
    await test.put('kept', old);
    for (const name of ['kept', 'new']) {
      const thrown = await test.store
        .put(test.key(name), failing())
        .catch((error: unknown) => error);
      test.same('the error', thrown instanceof RangeError, true);
    }
    test.sameBytes('blob', await test.read('kept'), old);
    test.same('names', await test.names(), ['kept']);
  });

  rule('stops at the signal, and keeps the old bytes', async (test) => {
    await test.put('kept', old);
    const before = AbortSignal.abort();
    await test.rejects('aborted', test.store.put(test.key('kept'), long, { signal: before }));
    await test.rejects('aborted', test.read('kept', { signal: before }));
    await test.rejects('aborted', test.store.head(test.key('kept'), { signal: before }));
    await test.rejects('aborted', test.store.delete(test.key('kept'), { signal: before }));
    const controller = new AbortController();
    async function* aborting(): AsyncGenerator<Uint8Array> {
      yield long.subarray(0, 6 * 2 ** 20);
      controller.abort();
      yield long.subarray(6 * 2 ** 20);
    }
    const { signal } = controller;
    await test.rejects('aborted', test.store.put(test.key('kept'), aborting(), { signal }));
    test.sameBytes('blob', await test.read('kept'), old);
    test.same('names', await test.names(), ['kept']);
  });
}

const ODD_NAMES = [
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
