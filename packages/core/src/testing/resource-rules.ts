/** The single rules of the resource suite; resource-walk.ts has the random one. */
import { DEFAULT_BUFFER_USAGE, paddedBytes, type Allocation } from '../resource.js';
import type { Rule } from './rule-test.js';

/** What is given out, and how it is accounted. */
export function registerLending(rule: Rule): void {
  rule('gives what was asked for, in a range that can be bound', (test) => {
    for (const sizeBytes of [1, 3, 4, 255, 256, 257, 1000]) {
      const range = test.take(sizeBytes, 'kv', `range of ${sizeBytes}`);
      const { kind, label } = range;
      test.same(
        'the allocation',
        { sizeBytes: range.sizeBytes, kind, label },
        {
          sizeBytes,
          kind: 'kv',
          label: `range of ${sizeBytes}`,
        },
      );
      test.same('an offset of whole words', range.offsetBytes % 4, 0);
      const end = range.offsetBytes + paddedBytes(sizeBytes);
      test.same(`the range ends at ${end} within its buffer`, end <= range.buffer.size, true);
      test.resource.free(range);
    }
    test.empty();
  });

  rule('gives a bindable range for zero bytes', (test) => {
    const range = test.take(0);
    test.same('size', range.sizeBytes, 0);
    test.same('a word in the buffer', range.offsetBytes + 4 <= range.buffer.size, true);
    test.same('live bytes', test.stats().liveBytes, 0);
    test.same('allocations', test.stats().allocationCount, 1);
    test.resource.free(range);
    test.empty();
  });

  rule('counts live bytes by kind', (test) => {
    const kv = test.take(1000, 'kv');
    const weights = test.take(24, 'weights');
    const more = test.take(8, 'kv');
    const { liveBytes, liveBytesByKind, allocationCount } = test.stats();
    test.same('live', { liveBytes, allocationCount }, { liveBytes: 1032, allocationCount: 3 });
    test.same('by kind', [liveBytesByKind.kv, liveBytesByKind.weights], [1008, 24]);
    test.resource.free(kv);
    test.same('kv after a free', test.stats().liveBytesByKind.kv, 8);
    test.resource.free(weights);
    test.resource.free(more);
    test.empty();
  });

  rule('gives buffers of the usage asked for', (test) => {
    const range = test.take(16);
    const usage = range.buffer.usage & DEFAULT_BUFFER_USAGE;
    test.same('default usage', usage, DEFAULT_BUFFER_USAGE);
    test.resource.free(range);
  });
}

/** What a caller can do wrong. */
export function registerMisuse(rule: Rule): void {
  rule('rejects malformed requests and changes nothing', (test) => {
    const before = test.stats();
    for (const sizeBytes of [-1, 0.5, NaN, Infinity]) {
      const request = { sizeBytes, kind: 'kv', label: 'malformed' } as const;
      test.throws('invalid-argument', () => test.resource.tryAllocate(request));
    }
    const unknownKind = { sizeBytes: 4, kind: 'nothing', label: 'malformed' };
    // A caller in plain JavaScript can pass any kind.
    const request = unknownKind as unknown as { sizeBytes: number; kind: 'kv'; label: string };
    test.throws('invalid-argument', () => test.resource.tryAllocate(request));
    test.same('stats', test.stats(), before);
  });

  rule('finds a double free, and frees nothing by it', (test) => {
    const first = test.take(64);
    const second = test.take(64);
    test.resource.free(first);
    const before = test.stats();
    test.throws('invalid-argument', () => test.resource.free(first));
    test.same('stats', test.stats(), before);
    test.resource.free(second);
    test.empty();
  });

  rule('finds an allocation that it did not give', (test) => {
    const own = test.take(64);
    const copy: Allocation = { ...own };
    test.throws('invalid-argument', () => test.resource.free(copy));
    test.same('allocations', test.stats().allocationCount, 1);
    test.resource.free(own);
    test.empty();
  });
}

/** What holds at the end of a resource's life. */
export function registerDisposal(rule: Rule): void {
  rule('refuses to be disposed while something is live, and names it', (test) => {
    const range = test.take(64, 'kv', 'a leaked range');
    const context = test.throws('invariant', () => test.resource.dispose());
    test.same('labels', context['labels'], ['a leaked range']);
    const after = test.take(64);
    test.resource.free(after);
    test.resource.free(range);
    test.resource.dispose();
  });

  rule('gives everything back when it is disposed, once', (test) => {
    const ranges = [100, 2000, 30].map((sizeBytes) => test.take(sizeBytes));
    for (const range of ranges) test.resource.free(range);
    test.resource.dispose();
    test.resource.dispose();
    test.same('live bytes', test.resource.stats().liveBytes, 0);
    const upstream = test.subject.upstream?.stats();
    test.same('allocations of the upstream', upstream?.allocationCount ?? 0, 0);
  });

  rule('throws after disposal', (test) => {
    const range = test.take(64);
    test.resource.free(range);
    test.resource.dispose();
    test.throws('disposed', () => test.take(64));
    test.throws('disposed', () => test.resource.free(range));
  });
}

/** What happens at the limit. */
export function registerExhaustion(rule: Rule, capacityBytes: number): void {
  if (capacityBytes === Infinity) {
    rule('has no limit', (test) => test.same('limit', test.stats().limitBytes, Infinity));
    return;
  }
  rule('says by value that there is no room, and changes nothing', (test) => {
    const held = test.take(64);
    const before = test.stats();
    const request = { sizeBytes: capacityBytes, kind: 'kv', label: 'too much' } as const;
    test.same('an allocation', test.resource.tryAllocate(request), undefined);
    test.same('stats', test.stats(), before);
    test.resource.free(held);
  });

  rule('names need, room and shortfall in the throwing twin', (test) => {
    // An odd size, so that padding counts too.
    const held = test.take(253);
    const context = test.throws('out-of-memory', () => test.take(capacityBytes, 'kv', 'too much'));
    const { limitBytes, liveBytes, paddingBytes } = test.stats();
    const neededBytes = paddedBytes(capacityBytes);
    const freeBytes = limitBytes - liveBytes - paddingBytes;
    const shortfallBytes = neededBytes - freeBytes;
    const wanted = { kind: 'kv', label: 'too much', neededBytes, freeBytes, limitBytes };
    test.same('context', context, { ...wanted, shortfallBytes });
    test.resource.free(held);
  });

  rule('fills up, refuses, and serves again what was freed', (test) => {
    const sizeBytes = Math.floor(capacityBytes / 8);
    const request = { sizeBytes, kind: 'activations', label: 'filling' } as const;
    const ranges: Allocation[] = [];
    for (let range = test.resource.tryAllocate(request); range !== undefined;) {
      ranges.push(range);
      test.same('as many as fit', ranges.length <= 8, true);
      range = test.resource.tryAllocate(request);
    }
    test.same('at least half of the capacity was given', ranges.length >= 4, true);
    for (let round = 0; round < 3; round += 1) {
      const last = ranges.pop();
      if (last !== undefined) test.resource.free(last);
      ranges.push(test.take(sizeBytes, 'activations'));
      test.same('full again', test.resource.tryAllocate(request), undefined);
    }
    for (const range of ranges) test.resource.free(range);
    test.empty();
  });
}
