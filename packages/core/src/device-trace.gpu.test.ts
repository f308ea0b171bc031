/** The trace of a device has every byte that its memory counts, from opening to disposal. */
import { createGpu } from '@vramkit/adapter';
import { expect, it } from 'vitest';
import { createTensor, openDevice, type MemoryEvent, type TraceEvent } from './index.js';

it('receives all allocations within the budget, and nothing of those refused', async () => {
  const { gpu } = await createGpu();
  const events: TraceEvent[] = [];
  let timeMs = 0;
  const trace = { sink: (event: TraceEvent) => void events.push(event), now: () => (timeMs += 1) };
  const device = await openDevice({ gpu, budgetBytes: 512 * 1024, trace });
  const last = (): MemoryEvent | undefined => events.filter((event) => 'liveBytes' in event).at(-1);
  const make = (count: number) =>
    createTensor(device, { dtype: 'f32', shape: [count], kind: 'kv', label: 'cache' });
  const tensor = make(1000);
  await tensor.read(); // takes staging of its own
  const { liveBytes, liveBytesByKind } = device.memory.stats();
  expect(last()).toMatchObject({ liveBytes, liveBytesByKind });
  expect(liveBytesByKind.kv).toBe(4000);
  const before = events.length;
  expect(() => make(200_000)).toThrow(/out-of-memory.*'cache'/);
  expect(events.length).toBe(before);
  tensor.dispose();
  expect(last()).toMatchObject({ type: 'free', label: 'cache', sizeBytes: 4000 });
  device.dispose();
  expect(last()?.liveBytes).toBe(0);
});
