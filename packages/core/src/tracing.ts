/**
 * What happened, as plain data: the events that a timeline records.
 *
 * Emitters (traced resources, transfers, whoever runs a phase) build one small object per event and
 * hand it to a {@link TraceSink}; without a sink they do nothing at all. A sink must be quick and
 * must not call back into the emitter. Every time is milliseconds on one clock that the caller
 * injects, so that events of several emitters order, and tests are exact.
 */
import type { MemoryKind } from './resource.js';

/** A clock in milliseconds; `performance.now` fits. */
export type Clock = () => number;

/** Memory was taken or given back. The totals are those after the event. */
export interface MemoryEvent {
  readonly type: 'allocate' | 'free';
  /** When, milliseconds on the injected clock. */
  readonly timeMs: number;
  readonly kind: MemoryKind;
  readonly label: string;
  /** Bytes asked for. */
  readonly sizeBytes: number;
  /** Live bytes of the traced resource. */
  readonly liveBytes: number;
  /** Live bytes of the traced resource, by kind. */
  readonly liveBytesByKind: Readonly<Record<MemoryKind, number>>;
}

/** Bytes moved between two tiers. */
export interface TransferEvent {
  readonly type: 'transfer';
  /** Start, milliseconds on the injected clock. */
  readonly timeMs: number;
  readonly durationMs: number;
  /** Where from and where to. */
  readonly direction: 'upload' | 'download' | 'copy';
  readonly label: string;
  readonly sizeBytes: number;
}

/** A named span of work: a load, a prefill, a decode step, an update. */
export interface PhaseEvent {
  readonly type: 'phase';
  /** Start, milliseconds on the injected clock. */
  readonly timeMs: number;
  readonly durationMs: number;
  readonly label: string;
  /** What did it, where several things work at once; spans of one lane do not overlap. */
  readonly lane?: string;
}

/** Everything that a timeline can hold. */
export type TraceEvent = MemoryEvent | TransferEvent | PhaseEvent;

/** Receives events in the order in which they happen. */
export type TraceSink = (event: TraceEvent) => void;
