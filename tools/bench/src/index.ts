/** What studies share with the benchmarks: measuring in turn, figures, packages on demand. */
export { parseCommandLine } from './command-line.js';
export type { Bench, BenchOptions, CommandLine } from './command-line.js';
export { leastRuns, measureInTurn, median, summarize } from './measure.js';
export type { InTurnOptions, Measure, Measured, Summary } from './measure.js';
export { installPeers, installPinned, missingPeers, workspaceFolder } from './peers.js';
export { ProductPeer } from './product-peer.js';
export {
  formatFigure,
  formatResults,
  formatTable,
  ratioOf,
  toResult,
  writeResults,
} from './report.js';
export type { BenchResult, FigureName } from './report.js';
