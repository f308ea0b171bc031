/**
 * Samples of a timeline as the CSV that NVML monitors write, so that notebooks made for those read
 * it.
 *
 * Columns: device_id, timestamp (ns, UTC), txpci and rxpci (MiB/s sent by and to the device: down
 * and up), gpu_util and mem_util (percent), mem_used and mem_free (bytes). A rate or utilisation is
 * the mean over the sample before it; lane `gpu` is what keeps the device busy.
 */
import { assertArgument, type TraceEvent } from '@vramkit/core';
import { SpanIndex } from './span-index.js';
import { busyMs, bytesWithin, laneSpans, timeRange } from './spans.js';

/** Options of {@link nvmlCsv}. */
export interface CsvOptions {
  /** Milliseconds between samples. Default: 20. */
  readonly periodMs?: number;
  /** Bytes of the device, for mem_util and mem_free. */
  readonly totalBytes: number;
  /** UTC of time 0 of the timeline's clock, milliseconds. Default: 0. */
  readonly epochMs?: number;
}

const HEADER = 'device_id,timestamp,txpci,rxpci,gpu_util,mem_util,mem_used,mem_free';
const MIB = 1024 * 1024;

/** The CSV text, with a header and a line per sample. */
export function nvmlCsv(events: readonly TraceEvent[], options: CsvOptions): string {
  const { periodMs = 20, totalBytes, epochMs = 0 } = options;
  assertArgument(periodMs > 0, `periodMs ${periodMs} must be above 0`);
  const { fromMs, toMs } = timeRange(events);
  const index = new SpanIndex(laneSpans(events));
  const memory = events.filter((event) => 'liveBytes' in event);
  const lines = [HEADER];
  let at = 0;
  let used = 0;
  for (let sample = 1; fromMs + (sample - 1) * periodMs < toMs; sample++) {
    const end = fromMs + sample * periodMs;
    for (let next = memory[at]; next !== undefined && next.timeMs <= end; next = memory[++at]) {
      used = next.liveBytes;
    }
    const start = end - periodMs;
    const near = (lane: string) => index.around(lane, start, end);
    const rate = (lane: string): string =>
      (bytesWithin(near(lane), lane, start, end) / MIB / (periodMs / 1e3)).toFixed(2);
    const util = ((100 * busyMs(near('gpu'), 'gpu', start, end)) / periodMs).toFixed(0);
    const share = ((100 * used) / totalBytes).toFixed(0);
    const ns = BigInt(Math.round((epochMs + end) * 1e3)) * 1000n;
    const free = totalBytes - used;
    lines.push([0, ns, rate('download'), rate('upload'), util, share, used, free].join(','));
  }
  return `${lines.join('\n')}\n`;
}
