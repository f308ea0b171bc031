/**
 * A timeline: the events of one run, in the order in which they came.
 *
 * Recording is one push into an array. Without a timeline emitters have no sink and do nothing, so
 * a program that is not traced pays for an `undefined` check. A full timeline keeps what it has and
 * counts what it drops: the start of a run explains the rest, and memory stays bounded.
 */
import { checkInteger, type MemoryKind, type TraceEvent, type TraceSink } from '@vramkit/core';

/** Options of {@link Timeline}. */
export interface TimelineOptions {
  /** Events kept; about 200 bytes each. Default: 1,000,000. */
  readonly maxEvents?: number;
}

/** Records events; hand {@link Timeline.sink} to whatever emits them. */
export class Timeline {
  readonly #events: TraceEvent[] = [];
  readonly #maxEvents: number;
  #dropped = 0;

  constructor(options: TimelineOptions = {}) {
    this.#maxEvents = checkInteger('maxEvents', options.maxEvents ?? 1_000_000, 1);
  }

  /** Records one event. */
  readonly sink: TraceSink = (event) => {
    if (this.#events.length < this.#maxEvents) this.#events.push(event);
    else this.#dropped += 1;
  };

  /** What was recorded. */
  get events(): readonly TraceEvent[] {
    return this.#events;
  }

  /** Events that came after the timeline was full. */
  get droppedCount(): number {
    return this.#dropped;
  }

  /** Forgets everything. */
  clear(): void {
    this.#events.length = 0;
    this.#dropped = 0;
  }
}

/** Highest live bytes of each kind, and of all together. */
export function peakBytes(events: readonly TraceEvent[]): {
  readonly total: number;
  readonly byKind: Readonly<Partial<Record<MemoryKind, number>>>;
} {
  let total = 0;
  const byKind: Partial<Record<MemoryKind, number>> = {};
  for (const event of events) {
    if (event.type !== 'allocate' && event.type !== 'free') continue;
    total = Math.max(total, event.liveBytes);
    byKind[event.kind] = Math.max(byKind[event.kind] ?? 0, event.liveBytesByKind[event.kind]);
  }
  return { total, byKind };
}
