/**
 * A fixed cost and a rate from timed runs at several sizes.
 *
 * The line goes through the least time at each size: on a machine that does other things too, the
 * least of several runs is the nearest to what the work itself takes, and medians tell more of the
 * others. The samples keep median and spread, for people.
 */

/** One fitted line: milliseconds = fixed + work / rate. */
export interface CalibratedRate {
  readonly fixedMs: number;
  /** Bytes or parameters per second. */
  readonly perSecond: number;
  /** Milliseconds at each size: median, least and most of the runs. */
  readonly samples: readonly {
    readonly work: number;
    readonly medianMs: number;
    readonly minMs: number;
    readonly maxMs: number;
  }[];
}

/** Runs at one size. */
export interface RateSample {
  /** Bytes or parameters. */
  readonly work: number;
  readonly ms: readonly number[];
}

/** A least-squares line through the least times, weighted to relative error, no part negative. */
export function fitRate(samples: readonly RateSample[]): CalibratedRate {
  const points = samples.map(({ work, ms }) => {
    const sorted = [...ms].sort((a, b) => a - b);
    const medianMs = sorted[sorted.length >> 1] ?? 0;
    return { work, medianMs, minMs: sorted[0] ?? 0, maxMs: sorted.at(-1) ?? 0 };
  });
  let [w, wx, wy, wxx, wxy] = [0, 0, 0, 0, 0];
  for (const { work, minMs } of points) {
    const weight = 1 / Math.max(minMs, 1e-6) ** 2;
    w += weight;
    wx += weight * work;
    wy += weight * minMs;
    wxx += weight * work * work;
    wxy += weight * work * minMs;
  }
  const slope = (w * wxy - wx * wy) / (w * wxx - wx * wx);
  const through = wxy / wxx;
  const fixed = (wy - slope * wx) / w;
  const isLine = slope > 0 && fixed >= 0;
  return {
    fixedMs: isLine ? fixed : 0,
    perSecond: 1e3 / (isLine ? slope : through),
    samples: points,
  };
}
