/**
 * What the demo measured, as plain data: the source of the terminal's table, of the JSON file and
 * of the HTML page alike.
 */
import type { MemoryKind } from '@vramkit/core';
import type { ExpertCacheStats } from '@vramkit/packer';

/** One policy's run. */
export interface PolicyRun {
  readonly policy: string;
  readonly answer: string;
  /** Most bytes of K and V that this sequence's blocks held while it answered. */
  readonly kvPeakBytes: number;
  /** Most blocks that it held. */
  readonly peakBlocks: number;
  readonly decodeTokensPerSecond: number;
  /** Perplexity of the text that truly follows the excerpt. */
  readonly perplexity: number;
  /** `GPUBuffer`s created between the second and the last decode step. */
  readonly buffersCreated: number;
  readonly bindGroupsCreated: number;
  readonly pipelinesCreated: number;
  /** Bytes of K and V held after each decode step; the first entry is right after the prefill. */
  readonly kvBytesByStep: readonly number[];
  /** Positions still cached at the end, ascending. */
  readonly survivors: readonly number[];
  /** Positions seen: prompt and answer. */
  readonly tokenCount: number;
  /** Hits over requests of experts while it answered; absent where all are resident. */
  readonly expertHitRate: number | undefined;
}

/** The cache of experts over the whole run, layers together. */
export interface ExpertReport extends ExpertCacheStats {
  readonly budgetBytes: number;
  /** Name of the replacement policy. */
  readonly policy: string;
  /** Whether experts were read ahead. */
  readonly prefetch: boolean;
}

/** Device memory at one moment. */
export interface MemorySample {
  readonly timeMs: number;
  /** Live bytes of each kind. */
  readonly byKind: Readonly<Record<MemoryKind, number>>;
}

/** Everything that one run of the demo measured. */
export interface GenerationReport {
  readonly model: string;
  readonly whyThisModel: string;
  readonly adapter: string;
  readonly textSource: string;
  readonly question: string;
  readonly promptTokens: number;
  readonly blockSize: number;
  readonly kvBudgetTokens: number;
  readonly gpuBudgetBytes: number | undefined;
  /** Absent where all experts are resident. */
  readonly experts: ExpertReport | undefined;
  readonly prefillTokensPerSecond: number;
  readonly totalSeconds: number;
  readonly runs: readonly PolicyRun[];
  readonly memory: readonly MemorySample[];
}
