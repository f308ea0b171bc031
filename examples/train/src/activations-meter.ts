/**
 * Puts the memory that TensorFlow.js takes into the trace of a run: it comes from the device's
 * memory, beside the run's own, and is mostly for activations. The library keeps what it has taken,
 * so one look after each pass is enough.
 */
import type { MemoryEvent, TraceSink } from '@vramkit/core';

/** A sink that counts foreign bytes in. */
export interface ActivationsMeter {
  /** To hand to whatever emits events. */
  readonly sink: TraceSink;
  /** Says how many bytes the other side has now. */
  note(bytes: number): void;
}

/** Sends events on to `trace`, with foreign bytes counted as activations. */
export function activationsMeter(
  trace: TraceSink | undefined,
  now: () => number,
): ActivationsMeter {
  let foreign = 0;
  let last: MemoryEvent | undefined;
  const counted = (event: MemoryEvent): MemoryEvent => {
    const { liveBytesByKind: own } = event;
    return {
      ...event,
      liveBytes: event.liveBytes + foreign,
      liveBytesByKind: { ...own, activations: own.activations + foreign },
    };
  };
  return {
    sink: (event) => {
      if (!('liveBytes' in event)) return trace?.(event);
      last = event;
      trace?.(counted(event));
    },
    note: (bytes) => {
      const change = bytes - foreign;
      foreign = bytes;
      if (change === 0 || last === undefined) return;
      trace?.({
        ...counted(last),
        ...{ type: change > 0 ? 'allocate' : 'free', timeMs: now(), kind: 'activations' },
        ...{ label: 'TensorFlow.js', sizeBytes: Math.abs(change) },
      });
    },
  };
}
