/** A snapshot adds up as PyTorch's viewer asserts, and its pickle reads back as what it was. */
import { PerformanceObserver } from 'node:perf_hooks';
import { setImmediate } from 'node:timers/promises';
import type { TraceEvent } from '@vramkit/core';
import { describe, expect, it } from 'vitest';
import { memorySnapshot, memoryVizPickle } from './memory-viz.js';
import { pickle, type Picklable } from './pickle.js';

const none = { kv: 0, activations: 0, gradients: 0, optimizer: 0, staging: 0, weights: 0 };
const memory = (type: 'allocate' | 'free', label: string, sizeBytes: number): TraceEvent => ({
  ...{ type, label, sizeBytes, kind: 'weights', timeMs: 1.5 },
  ...{ liveBytes: 0, liveBytesByKind: none },
});

/** Reads protocol 2 as its definition says, and nothing that `pickle` does not write. */
function unpickle(bytes: Uint8Array): unknown {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stack: unknown[] = [];
  const marks: number[] = [];
  expect([bytes[0], bytes[1]]).toEqual([0x80, 2]);
  for (let at = 2; ;) {
    const opcode = String.fromCharCode(bytes[at++] ?? 0);
    if (opcode === '.') {
      expect(at).toBe(bytes.length);
      return stack.pop();
    }
    if (opcode === 'N') stack.push(null);
    else if (opcode === ']') stack.push([]);
    else if (opcode === '}') stack.push({});
    else if (opcode === '(') marks.push(stack.length);
    else if (opcode === 'J') {
      stack.push(view.getInt32(at, true));
      at += 4;
    } else if (opcode === '\x8a') {
      expect(bytes[at]).toBe(8);
      stack.push(Number(view.getBigInt64(at + 1, true)));
      at += 9;
    } else if (opcode === 'X') {
      const length = view.getUint32(at, true);
      stack.push(new TextDecoder().decode(bytes.subarray(at + 4, at + 4 + length)));
      at += 4 + length;
    } else {
      const items = stack.splice(marks.pop() ?? 0);
      const target = stack.at(-1) as unknown[] & Record<string, unknown>;
      if (opcode === 'e') target.push(...items);
      else if (opcode === 'u') {
        for (let i = 0; i < items.length; i += 2) target[items[i] as string] = items[i + 1];
      } else throw new Error(`opcode ${opcode}`);
    }
  }
}

describe('pickle', () => {
  it('reads back: integers of any size, long lists, text', () => {
    const value: Picklable = {
      numbers: [0, -1, 2 ** 31 - 1, -(2 ** 31), 2 ** 31, -(2 ** 40), Number.MAX_SAFE_INTEGER],
      long: Array.from({ length: 2500 }, (_, i) => i),
      empty: [],
      nothing: null,
      'text é': { inner: '' },
    };
    expect(unpickle(pickle(value))).toEqual(value);
    expect(() => pickle(0.5)).toThrow(expect.objectContaining({ code: 'invalid-argument' }));
  });

  it('makes no object for each part: a long timeline has millions', async () => {
    // A young generation is 16 MB, which an array for each of these would fill many times.
    const integers = Array.from({ length: 1_000_000 }, (_, i) => i);
    pickle(integers);
    let collections = 0;
    const observer = new PerformanceObserver((list) => (collections += list.getEntries().length));
    observer.observe({ entryTypes: ['gc'] });
    const { length } = pickle(integers);
    for (let turn = 0; turn < 3; turn++) await setImmediate();
    observer.disconnect();
    expect(length).toBe(2 + 1 + 1_000_000 * 5 + 1000 * 2 + 1);
    expect(collections).toBeLessThanOrEqual(10);
  });
});

it('has a segment for what is live, and a history in which every address is used once', () => {
  const events = [
    memory('allocate', 'a', 1000),
    memory('allocate', 'b', 0),
    memory('free', 'a', 1000),
    memory('free', 'unseen', 4),
    memory('allocate', 'a', 1000),
  ];
  const snapshot = unpickle(memoryVizPickle(events)) as {
    segments: { address: number; total_size: number; blocks: { size: number }[] }[];
    device_traces: { action: string; addr: number; size: number; time_us: number }[][];
  };
  expect(snapshot).toEqual(memorySnapshot(events));
  expect(snapshot.segments.map(({ total_size: size }) => size)).toEqual([1000, 1]);
  for (const { total_size: size, blocks } of snapshot.segments) {
    expect(blocks.reduce((sum, block) => sum + block.size, 0)).toBe(size);
  }
  const [trace = []] = snapshot.device_traces;
  const actions = (addr: number): string[] =>
    trace.filter((entry) => entry.addr === addr).map(({ action }) => action);
  const whole = ['segment_alloc', 'alloc', 'free_requested', 'free_completed', 'segment_free'];
  expect(actions(512)).toEqual(whole);
  expect(actions(1536)).toEqual(whole.slice(0, 2));
  expect(actions(2048)).toEqual(whole.slice(0, 2));
  expect(trace).toHaveLength(9);
});
