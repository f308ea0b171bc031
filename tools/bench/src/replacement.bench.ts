/**
 * What do the replacement policies keep, and what does a read cost, beside npm `lru-cache`? Goal:
 * our lru at least as fast; sieve or s3Fifo with a higher hit ratio where scans pass through.
 *
 * All sides (`cache-sides.ts`) read the same traces (`cache-traces.ts`) in turn, each in a process
 * of its own. The hit ratio is exact; the time is CPU time of all reads of a trace by a cache that
 * starts empty, so that a busy machine does not count.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { CACHE_SIDES, RIVAL, type CacheReading, type CacheTask } from './cache-sides.js';
import { scanMixedTrace, zipfTrace } from './cache-traces.js';
import type { BenchOptions } from './command-line.js';
import { measureInTurn, type Measure, type Summary } from './measure.js';
import { toResult, type BenchResult } from './report.js';

/** The question, for the terminal. */
export const question =
  'Hit ratio and CPU time per read of the replacement policies, beside lru-cache';

async function read(side: ChildProcess, task: CacheTask): Promise<CacheReading> {
  const answer = once(side, 'message');
  side.send(task);
  // A foreign boundary: the message that cache-sides.ts posts.
  const [reading] = (await answer) as [CacheReading];
  return reading;
}

async function runTask(
  task: CacheTask,
  sides: ReadonlyMap<string, ChildProcess>,
): Promise<BenchResult[]> {
  const { trace, capacity } = task;
  const ratios = new Map<string, number>();
  const measure =
    (name: string, side: ChildProcess): Measure =>
    async () => {
      const { hits, cpuMicroseconds } = await read(side, task);
      ratios.set(name, hits / trace.keys.length);
      return (cpuMicroseconds * 1e3) / trace.keys.length;
    };
  const [[rival, rivalSide] = [], ...others] = sides;
  if (rival === undefined || rivalSide === undefined) throw new RangeError('there is no rival');
  const all = {
    ours: measure(rival, rivalSide),
    peers: Object.fromEntries(others.map(([name, side]) => [name, measure(name, side)])),
  };
  // The first rounds of a process compile it; fewer than three show in the first trace.
  const measured = await measureInTurn(all, { warmUps: 3 });
  return Object.entries(measured.peers).flatMap(([name, ours]) => {
    const exact = (of: string): Summary => {
      const median = ratios.get(of) ?? NaN;
      return { median, min: median, max: median, runs: ours.runs };
    };
    const beside = (own: Summary, other: Summary) => ({
      ours: own,
      peers: { [rival]: other },
      failures: {},
    });
    const of = {
      suite: 'replacement',
      case: `${trace.name}, ${capacity} of ${trace.keyCount} keys, ${name}`,
      driver: 'none',
    };
    const time = { ...of, metric: 'CPU time per read', unit: 'ns', better: 'lower' } as const;
    const hits = { ...of, metric: 'hit ratio', unit: 'share', better: 'higher' } as const;
    const times = toResult(time, beside(ours, measured.ours));
    // The ids change nothing in what is kept.
    if (name.includes(',')) return [times];
    return [toResult(hits, beside(exact(name), exact(rival))), times];
  });
}

/** Measures. */
export async function run({ quick, log }: BenchOptions): Promise<readonly BenchResult[]> {
  const length = quick ? 200_000 : 1_000_000;
  const options = { length, keyCount: length / 10, seed: 1 };
  const names = [RIVAL, ...Object.keys(CACHE_SIDES).filter((name) => name !== RIVAL)];
  const file = fileURLToPath(new URL('./cache-sides.ts', import.meta.url));
  const open = (name: string): ChildProcess => fork(file, [name], { serialization: 'advanced' });
  const sides = new Map(names.map((name) => [name, open(name)]));
  try {
    const results: BenchResult[] = [];
    for (const share of [0.01, 0.1]) {
      const capacity = options.keyCount * share;
      for (const trace of [zipfTrace(options), scanMixedTrace({ ...options, capacity })]) {
        log(`${trace.name}: ${length} reads, ${capacity} copies held`);
        results.push(...(await runTask({ trace, capacity }, sides)));
      }
    }
    return results;
  } finally {
    for (const side of sides.values()) side.kill();
  }
}
