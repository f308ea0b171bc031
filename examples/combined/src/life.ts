/**
 * The life of a program as far as device memory goes: every allocation and free, by kind, and which
 * stage they fall into.
 *
 * Devices and processes follow one another; the times of all are on one clock, so that what each of
 * them recorded can be put in a row.
 */
import {
  MEMORY_KINDS,
  type Clock,
  type MemoryEvent,
  type MemoryKind,
  type TraceEvent,
  type TraceSink,
} from '@vramkit/core';
import { Timeline } from '@vramkit/trace';

/** A stage, on the clock of its life. */
export interface Stage {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
}

/** What was recorded; plain data. */
export interface LifeRecord {
  readonly stages: readonly Stage[];
  readonly events: readonly TraceEvent[];
}

/** A stage and the most that it had on the device. */
export interface StageFigures extends Stage {
  readonly peakBytes: number;
  /** Bytes of each kind at that moment. */
  readonly byKind: Readonly<Record<MemoryKind, number>>;
}

/** Milliseconds of the wall, so that processes agree. */
const wallMs = (): number => performance.timeOrigin + performance.now();

/** Records stages and the memory of devices that are opened with its {@link Life.trace}. */
export class Life {
  /** When it began, milliseconds of the wall. */
  readonly originMs: number;
  readonly trace: { readonly sink: TraceSink; readonly now: Clock };
  readonly #timeline = new Timeline();
  readonly #stages: Stage[] = [];
  readonly #earlier: TraceEvent[] = [];

  /** @param originMs Of the process that this one belongs to. Default: now. */
  constructor(originMs = wallMs()) {
    this.originMs = originMs;
    this.trace = { sink: this.#timeline.sink, now: () => wallMs() - originMs };
  }

  /** Runs a stage; it is recorded when it ends well. */
  async stage<T>(name: string, work: () => Promise<T>): Promise<T> {
    const startMs = this.trace.now();
    const result = await work();
    this.#stages.push({ name, startMs, endMs: this.trace.now() });
    return result;
  }

  /** Puts what another process recorded behind what there is. */
  append({ stages, events }: LifeRecord): void {
    this.#earlier.push(...this.#timeline.events, ...events);
    this.#timeline.clear();
    this.#stages.push(...stages);
  }

  /** What was recorded so far. */
  record(): LifeRecord {
    return { stages: [...this.#stages], events: [...this.#earlier, ...this.#timeline.events] };
  }
}

const NOTHING = Object.fromEntries(MEMORY_KINDS.map((kind) => [kind, 0])) as Readonly<
  Record<MemoryKind, number>
>;

/** The peak of each stage: of what it found on the device, and of every change in it. */
export function stageFigures({ stages, events }: LifeRecord): StageFigures[] {
  const changes = events.filter((event): event is MemoryEvent => 'liveBytes' in event);
  return stages.map((stage) => {
    const before = changes.findLast(({ timeMs }) => timeMs < stage.startMs);
    const within = changes.filter(({ timeMs }) => timeMs >= stage.startMs && timeMs <= stage.endMs);
    let peakBytes = before?.liveBytes ?? 0;
    let byKind = before?.liveBytesByKind ?? NOTHING;
    for (const { liveBytes, liveBytesByKind } of within) {
      if (liveBytes <= peakBytes) continue;
      peakBytes = liveBytes;
      byKind = liveBytesByKind;
    }
    return { ...stage, peakBytes, byKind };
  });
}
