/** Plots of a report: data that the page draws with uPlot. */

/** One line, or dots, over the shared x values. */
export interface PlotSeries {
  readonly label: string;
  /** One value per x; `null` where there is none. */
  readonly values: readonly (number | null)[];
  /** Draws dots without a line. Default: false. */
  readonly dots?: boolean;
}

/** One plot. */
export interface Plot {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  /** Ascending. */
  readonly x: readonly number[];
  readonly series: readonly PlotSeries[];
  /** Draws the values as bytes, in steps: they stay until they change. Default: false. */
  readonly bytes?: boolean;
  /** Adds the series up and fills between them. Default: false. */
  readonly stacked?: boolean;
  /** Stretches of x with a name, drawn behind. Default: none. */
  readonly bands?: readonly {
    readonly from: number;
    readonly to: number;
    readonly label: string;
  }[];
}

/** Series added up from the last to the first, so that each one's area lies above the next. */
export function stack(series: readonly PlotSeries[]): PlotSeries[] {
  return series.map((each, index) => ({
    ...each,
    values: each.values.map((_, at) =>
      series.slice(index).reduce((sum, { values }) => sum + (values[at] ?? 0), 0),
    ),
  }));
}
