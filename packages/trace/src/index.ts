/**
 * What happened on a device and around it: a recorder of core's trace events, and what to make of
 * them.
 */
export { checkChromeTrace } from './check-chrome.js';
export {
  chromeTrace,
  type ChromeEvent,
  type ChromeTrace,
  type ChromeTraceOptions,
} from './chrome.js';
export { memorySnapshot, memoryVizPickle } from './memory-viz.js';
export { readChromeTrace } from './read-chrome.js';
export { nvmlCsv, type CsvOptions } from './csv.js';
export { pickle, type Picklable } from './pickle.js';
export {
  memoryPlot,
  occupancyTable,
  overlapTable,
  phaseTable,
  transferPlot,
  type ReportTable,
} from './report/figures.js';
export { renderReport, type PlotLibrary, type ReportOptions } from './report/page.js';
export type { Plot, PlotSeries } from './report/plot.js';
export {
  busyMs,
  bytesByPhase,
  bytesWithin,
  laneNames,
  laneSpans,
  overlapMs,
  PHASE_LANE,
  timeRange,
  type LaneSpan,
} from './spans.js';
export { peakBytes, Timeline, type TimelineOptions } from './timeline.js';
