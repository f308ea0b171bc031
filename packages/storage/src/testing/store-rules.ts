/** Rules about one client: what goes in comes out, and what is wrong changes nothing. */
import { inParts } from '../blob-body.js';
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

  rule(
    'keeps blobs for a client that is opened later, where it says that it is durable',
    async (test) => {
      if (test.store.capabilities.durability === 'none') return;
      await test.put('lasting', testBytes(100_000));
      const later = await test.reopen?.();
      if (later === undefined) throw new Error('a durable store is shown by `reopen`');
      test.sameBytes('blob', await test.read('lasting', {}, later), testBytes(100_000));
    },
  );

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

/** Memory of the caller's, and memory that is used again. */
export function registerMemory(rule: StoreRule): void {
  rule("reads into the caller's memory, or gives chunks of its own", async (test) => {
    const bytes = testBytes(9 * 2 ** 20 + 7);
    await test.put('wanted', bytes);
    for (const [offsetBytes, lengthBytes] of [
      [0, bytes.length],
      [3, 100],
      [4 * 2 ** 20 - 1, 4 * 2 ** 20 + 2],
      [bytes.length - 70_000, 70_000],
      [5, 0],
    ] as const) {
      const isRest = offsetBytes + lengthBytes === bytes.length;
      for (const way of ['array', 'function', ...(isRest ? ['function for the rest'] : [])]) {
        const memory = new Uint8Array(lengthBytes + 20).fill(7);
        const place = memory.subarray(10, 10 + lengthBytes);
        const given = (sizeBytes: number): Uint8Array => {
          test.same('size of the memory', sizeBytes, lengthBytes);
          return place;
        };
        const into = way === 'array' ? place : given;
        const range = { offsetBytes, ...(way.endsWith('rest') ? {} : { lengthBytes }) };
        let at = 0;
        for await (const chunk of test.store.get(test.key('wanted'), { ...range, into })) {
          const expected = bytes.subarray(offsetBytes + at, offsetBytes + at + chunk.length);
          test.sameBytes(`${way}, ${chunk.length} B at ${offsetBytes + at}`, chunk, expected);
          if (chunk.buffer === memory.buffer) {
            test.same('place of a chunk', chunk.byteOffset - place.byteOffset, at);
          }
          at += chunk.length;
        }
        test.same('bytes', at, lengthBytes);
        const around = [...memory.subarray(0, 10), ...memory.subarray(-10)];
        test.same('what is around', around, Array<number>(20).fill(7));
      }
    }
  });

  rule('lends chunks that stay as they are until the next is asked for', async (test) => {
    const bytes = testBytes(9 * 2 ** 20 + 7);
    await test.put('lent', bytes);
    const read = async (offsetBytes: number, lengthBytes: number): Promise<void> => {
      const range = { offsetBytes, lengthBytes, lend: true };
      let at = offsetBytes;
      for await (const chunk of test.store.get(test.key('lent'), range)) {
        // Reads that are under way come in meanwhile.
        await new Promise((resolve) => setTimeout(resolve, 1));
        test.sameBytes(`lent at ${at}`, chunk, bytes.subarray(at, at + chunk.length));
        at += chunk.length;
      }
      test.same('bytes', at - offsetBytes, lengthBytes);
    };
    // Two at once use the same memory in turn; the third finds what they left.
    await Promise.all([read(0, bytes.length), read(2 ** 20 - 1, 7 * 2 ** 20)]);
    await read(3, bytes.length - 3);
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
    // What only begins other keys is no blob.
    test.same('head of a folder', await test.store.head(test.key('branch')), undefined);
    await test.rejects('not-found', test.read('branch'));
    await test.store.delete(test.key('branch'));
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

/** Blobs beyond the offsets that 32 bits hold. */
export function registerGiant(rule: StoreRule, sizeBytes: number): void {
  const frameBytes = 2 ** 23;
  const frames = Math.ceil(sizeBytes / frameBytes);

  // Each frame is its number, in 8 bytes, and zeros.
  async function* body(): AsyncGenerator<Uint8Array> {
    const zeros = new Uint8Array(frameBytes - 8);
    for (let i = 0; i < frames; i += 1) {
      yield new Uint8Array(new BigUint64Array([BigInt(i)]).buffer);
      yield zeros;
    }
  }

  rule(`reads any part of a blob of ${sizeBytes / 2 ** 30} GiB`, async (test) => {
    const total = frames * frameBytes;
    const info = await test.store.put(test.key('giant'), body(), { sizeBytes: total });
    test.same('size', info.sizeBytes, total);
    for (const place of [0, 2 ** 31, 2 ** 32, total - frameBytes]) {
      const frame = Math.floor(place / frameBytes);
      const offsetBytes = Math.max(0, frame * frameBytes - 5);
      const lengthBytes = Math.min(20, total - offsetBytes);
      const expected = Buffer.alloc(lengthBytes);
      expected.writeBigUInt64LE(BigInt(frame), frame * frameBytes - offsetBytes);
      const part = await test.read('giant', { offsetBytes, lengthBytes }, test.other);
      test.sameBytes(`${lengthBytes} B at ${offsetBytes}`, part, expected);
    }
    const tail = await test.read('giant', { offsetBytes: total - 5 });
    test.sameBytes('the last 5 B', tail, new Uint8Array(5));
    await test.store.delete(test.key('giant'));
  });
}
