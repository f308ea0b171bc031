/**
 * `/metrics` in Prometheus' text format: counts of the engine, read when asked, and times of
 * requests.
 *
 * `vramkit_prefill_tokens_total` counts prompt tokens that were computed,
 * `vramkit_prefix_hit_tokens_total` those that were not because their K and V were in the cache.
 */
import { performance } from 'node:perf_hooks';
import { MEMORY_KINDS } from '@vramkit/core';
import { expertStats, type BatchEngine, type EngineMetrics } from '@vramkit/example-runtime';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

const SECONDS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];

const COUNTERS = {
  requests: ['requests_total', 'Requests that asked the prefix cache'],
  queryTokens: ['prompt_tokens_total', 'Prompt tokens of those requests'],
  hitTokens: ['prefix_hit_tokens_total', 'Prompt tokens found in the prefix cache'],
  prefillTokens: ['prefill_tokens_total', 'Prompt tokens computed'],
  generatedTokens: ['generated_tokens_total', 'Tokens generated'],
  recomputedTokens: ['recomputed_tokens_total', 'Tokens computed again after a preemption'],
  preemptions: ['preemptions_total', 'Requests preempted for want of blocks'],
  evictedBlocks: ['evicted_blocks_total', 'Cached blocks handed out for something else'],
  steps: ['steps_total', 'Forward passes'],
} as const satisfies Partial<Record<keyof EngineMetrics, readonly [string, string]>>;

const GAUGES = {
  running: ['requests_running', 'Requests that hold blocks'],
  waiting: ['requests_waiting', 'Requests that wait for blocks or a place in a step'],
  usage: ['kv_cache_usage_ratio', 'Blocks in use, as a fraction of all'],
  cachedBlocks: ['kv_cache_hittable_blocks', 'Blocks that a prefix can hit'],
  totalBlocks: ['kv_cache_blocks', 'Blocks of the KV cache'],
  recentHitRate: ['prefix_hit_ratio', 'Hit tokens over prompt tokens of the last requests'],
} as const satisfies Partial<Record<keyof EngineMetrics, readonly [string, string]>>;

/** Of models whose experts are cached. */
const EXPERT_COUNTERS = {
  hits: ['expert_hits_total', 'Requests of steps that found their expert on the device'],
  misses: ['expert_misses_total', 'Requests of steps that did not'],
  lowBit: ['expert_low_bit_total', 'Requests that a copy of few bits answered'],
  prefetched: ['expert_prefetched_total', 'Experts read ahead'],
  prefetchHits: ['expert_prefetch_hits_total', 'Experts read ahead that were then asked for'],
  loadedBytes: ['expert_loaded_bytes_total', 'Bytes of experts brought to the device'],
} as const;

/** All metrics of one server, in a registry of their own. */
export class ServerMetrics {
  readonly registry = new Registry();
  readonly #responses: Counter<'route' | 'status'>;
  readonly #firstToken: Histogram;
  readonly #duration: Histogram<'route'>;

  constructor(engine: BatchEngine) {
    const registers = [this.registry];
    const count = ([name, help]: readonly [string, string], read: () => number): void => {
      new Counter({
        name: `vramkit_${name}`,
        help,
        registers,
        collect(): void {
          this.reset();
          this.inc(read());
        },
      });
    };
    for (const [key, names] of Object.entries(COUNTERS)) {
      count(names, () => engine.metrics()[key as keyof typeof COUNTERS]); // Its own keys.
    }
    if (expertStats(engine.model) !== undefined) {
      for (const [key, names] of Object.entries(EXPERT_COUNTERS)) {
        const own = key as keyof typeof EXPERT_COUNTERS; // Its own keys.
        count(names, () => expertStats(engine.model)?.[own] ?? 0);
      }
    }
    for (const [key, [name, help]] of Object.entries(GAUGES)) {
      const read = (): number => engine.metrics()[key as keyof typeof GAUGES]; // Its own keys.
      new Gauge({
        name: `vramkit_${name}`,
        help,
        registers,
        collect(): void {
          this.set(read());
        },
      });
    }
    new Gauge({
      name: 'vramkit_device_bytes',
      help: 'Device memory by kind, bytes',
      labelNames: ['kind'],
      registers,
      collect(): void {
        const { liveBytesByKind } = engine.device.memory.stats();
        for (const kind of MEMORY_KINDS) this.set({ kind }, liveBytesByKind[kind]);
      },
    });
    this.#responses = new Counter({
      name: 'vramkit_http_responses_total',
      help: 'Answers by route and status; 499 where the client left',
      labelNames: ['route', 'status'],
      registers,
    });
    this.#firstToken = new Histogram({
      name: 'vramkit_time_to_first_token_seconds',
      help: 'From the request to the first text of its answer',
      buckets: SECONDS,
      registers,
    });
    this.#duration = new Histogram({
      name: 'vramkit_request_seconds',
      help: 'From the request to the end of its answer',
      labelNames: ['route'],
      buckets: SECONDS,
      registers,
    });
  }

  /** Begins to time a request; call the result with the status of its answer. */
  time(route: string): (status: number) => void {
    const seconds = stopwatch();
    return (status) => {
      this.#responses.inc({ route, status: String(status) });
      this.#duration.observe({ route }, seconds());
    };
  }

  /** Begins to time an answer; call the result at each piece of text. */
  timeFirstText(): () => void {
    const seconds = stopwatch();
    let isFirst = true;
    return () => {
      if (isFirst) this.#firstToken.observe(seconds());
      isFirst = false;
    };
  }
}

function stopwatch(): () => number {
  const begin = performance.now();
  return () => (performance.now() - begin) / 1000;
}
