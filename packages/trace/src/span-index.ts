/**
 * Spans by lane, found by time: what figures ask once for each phase or sample.
 *
 * The spans of a lane are sorted by start, and so are the latest ends up to each of them; what
 * touches a stretch of time lies between two bisections. A span that lasts through the whole run is
 * the first of every stretch behind it, which then costs a walk from there.
 */

/** What is found: a stretch of time in one lane, milliseconds. */
interface TimedSpan {
  readonly lane: string;
  readonly startMs: number;
  readonly endMs: number;
}

interface Lane<Span> {
  readonly spans: Span[];
  /** The latest end among the spans up to each one. */
  readonly latestEnds: number[];
}

/** Spans of a timeline, for many questions. */
export class SpanIndex<Span extends TimedSpan> {
  readonly #lanes = new Map<string, Lane<Span>>();

  /** @param spans By start. */
  constructor(spans: readonly Span[]) {
    for (const span of spans) {
      const lane = this.#lanes.get(span.lane) ?? { spans: [], latestEnds: [] };
      this.#lanes.set(span.lane, lane);
      lane.spans.push(span);
      lane.latestEnds.push(Math.max(lane.latestEnds.at(-1) ?? -Infinity, span.endMs));
    }
  }

  /** All spans of a lane that touch [fromMs, toMs], by start, and perhaps some that do not. */
  around(lane: string, fromMs: number, toMs: number): readonly Span[] {
    const { spans = [], latestEnds = [] } = this.#lanes.get(lane) ?? {};
    const start = firstIndex(latestEnds.length, (index) => (latestEnds[index] ?? NaN) >= fromMs);
    const end = firstIndex(spans.length, (index) => (spans[index]?.startMs ?? NaN) > toMs);
    return spans.slice(start, end);
  }
}

/** The first index from which on a condition holds; `count` where it never does. */
function firstIndex(count: number, holds: (index: number) => boolean): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}
