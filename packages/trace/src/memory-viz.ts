/**
 * A timeline's memory as PyTorch's memory viewer reads it: pytorch.org/memory_viz, or
 * `torch.cuda._memory_viz`.
 *
 * Every allocation is a segment of its own with one block, at an address that was never used
 * before: WebGPU shows no addresses, and this keeps the viewer's history right. Kind and label
 * stand where PyTorch has the innermost frame of a stack. What was allocated before the timeline
 * began is not in it; a free of it is left out.
 *
 * Source: the snapshot of `torch.cuda.memory._snapshot()`, PyTorch 2.
 */
import type { MemoryEvent, TraceEvent } from '@vramkit/core';
import { pickle, type Picklable } from './pickle.js';

const ALIGNMENT = 512;

interface Live {
  readonly address: number;
  readonly size: number;
}

/** The snapshot as plain data, for one device. Time O(n). */
export function memorySnapshot(events: readonly TraceEvent[]): Picklable {
  const live = new Map<string, Live[]>();
  const trace: Picklable[] = [];
  let next = ALIGNMENT;
  for (const event of events) {
    if (event.type !== 'allocate' && event.type !== 'free') continue;
    const key = `${event.kind}\n${event.label}\n${event.sizeBytes}`;
    const held = live.get(key) ?? [];
    live.set(key, held);
    const add = (action: string, { address, size }: Live): void => {
      const time = { time_us: Math.round(event.timeMs * 1e3) };
      trace.push({ action, addr: address, size, stream: 0, frames: frames(event), ...time });
    };
    if (event.type === 'allocate') {
      const block = { address: next, size: Math.max(1, event.sizeBytes) };
      next += Math.ceil(block.size / ALIGNMENT) * ALIGNMENT;
      held.push(block);
      add('segment_alloc', block);
      add('alloc', block);
      continue;
    }
    const block = held.pop();
    if (block === undefined) continue;
    for (const action of ['free_requested', 'free_completed', 'segment_free']) add(action, block);
  }
  const segments = [...live].flatMap(([key, blocks]) =>
    blocks.map(({ address, size }): Picklable => {
      const [kind = '', label = ''] = key.split('\n');
      const stack = frames({ kind, label });
      const block = { address, size, requested_size: size, state: 'active_allocated' };
      return {
        device: 0,
        address,
        total_size: size,
        allocated_size: size,
        active_size: size,
        requested_size: size,
        stream: 0,
        segment_type: 'large',
        frames: stack,
        blocks: [{ ...block, frames: stack }],
      };
    }),
  );
  return { segments, device_traces: [trace] };
}

function frames({ kind, label }: Pick<MemoryEvent, 'label'> & { kind: string }): Picklable {
  return [{ name: label, filename: kind, line: 0 }];
}

/** The snapshot as a pickle: the file that the viewer opens. */
export function memoryVizPickle(events: readonly TraceEvent[]): Uint8Array<ArrayBuffer> {
  return pickle(memorySnapshot(events));
}
