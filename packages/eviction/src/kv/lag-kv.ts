/**
 * LagKV: keep the tokens whose keys and values vary most, measured against those that follow.
 *
 * Behind the sinks the held tokens are cut into partitions of `lagTokens`. Each partition is
 * normalised, channel by channel, by the least and greatest values of the next one; a token's
 * spread is the standard deviation over its normalised channels, turned into weights by softmax
 * within the partition. The mean of the weights by keys and by values ranks the tokens of a
 * partition, and the rank is the score, so that every partition gives up the same share.
 *
 * ```
 *   sinks | partition 0 | partition 1 | ... | partition n - 1 | rest
 *   1       ranks / lag   ranks / lag         1                 1
 *           by 1's range  by 2's range        nothing follows
 * ```
 *
 * With fewer tokens than sinks and two partitions the score is recency behind the sinks.
 *
 * Heads and layers: a token's score is the mean over layers of the mean over KV heads of its rank.
 * The paper chooses per head, which one block table for all heads does not allow.
 *
 * Where this differs from the paper: whole blocks of lowest mean go at decode, over partitions of
 * the tokens that are held then; a channel that is constant in the next partition is divided by
 * `epsilon`, where the published code divides by zero; of equal weights the older token ranks
 * lower; ends are protected by default.
 *
 * What it gets wrong: ranks hide how much partitions differ, so a dull passage keeps as much as a
 * dense one.
 *
 * Cost: all keys and values are read.
 *
 * Source: Liang and others, "LagKV: Lag-Relative Information of the KV Cache Tells Which Tokens Are
 * Important" (arXiv 2504.04704).
 */
import { assertArgument, checkInteger } from '@vramkit/core';
import type { KvPolicy, KvScore } from '../policy.js';
import { scored, type ScoredOptions } from '../scored.js';
import { addSoftmax } from '../softmax.js';
import { statistic } from '../tokens.js';

/** Options of {@link lagKv}. */
export interface LagKvOptions extends ScoredOptions {
  /** Tokens of a partition. Default: 128. */
  readonly lagTokens?: number;
  /** First held tokens that score highest, tokens. Default: 4. */
  readonly sinkTokens?: number;
  /** Smallest range of a channel that is divided by. Default: 1e-6. */
  readonly epsilon?: number;
}

/** The rows of one layer and head in an array of all tokens. */
interface HeadRows {
  readonly values: Float32Array;
  readonly headDim: number;
  /** Layers times KV heads. */
  readonly width: number;
  /** Which of them. */
  readonly row: number;
}

/**
 * Rank of the spread relative to the next partition.
 * @throws VramError `invalid-argument` where `lagTokens` is below 1, `sinkTokens` is no count, or
 *   `epsilon` is not positive.
 */
export function lagRank(options: {
  readonly lagTokens: number;
  readonly sinkTokens: number;
  readonly epsilon: number;
}): KvScore {
  const { epsilon } = options;
  const lag = checkInteger('lagTokens', options.lagTokens, 1);
  const sinks = checkInteger('sinkTokens', options.sinkTokens);
  assertArgument(
    epsilon > 0 && Number.isFinite(epsilon),
    `epsilon must be positive and finite, got ${epsilon}`,
  );
  return {
    needs: ['keys', 'values'],
    attentionQueries: 0,
    blockScore: 'when-triggered',
    blockMean: undefined,
    score(tokens, out) {
      const arrays = [statistic(tokens, 'keys'), statistic(tokens, 'values')];
      const width = tokens.layers * tokens.kvHeads;
      const behind = tokens.tokenCount - sinks;
      out.fill(1);
      if (behind < 2 * lag) {
        for (let token = sinks; token < tokens.tokenCount; token++) {
          out.fill((token - sinks) / behind, token * width, (token + 1) * width);
        }
        return;
      }
      for (let row = 0; row < width; row++) {
        for (let start = sinks; start + 2 * lag <= tokens.tokenCount; start += lag) {
          const weights = new Float64Array(lag);
          for (const values of arrays) {
            const rows = { values, headDim: values.length / out.length, width, row };
            addSoftmax(weights, spreads(rows, start, lag, epsilon), 0.5);
          }
          ranks(weights).forEach((rank, i) => {
            out[(start + i) * width + row] = rank / lag;
          });
        }
      }
    },
  };
}

/**
 * Keeps what varies.
 * @throws VramError `invalid-argument` as {@link scored} and {@link lagRank}.
 */
export function lagKv(options: LagKvOptions): KvPolicy {
  const { lagTokens = 128, sinkTokens = 4, epsilon = 1e-6 } = options;
  return scored('lagKv', lagRank({ lagTokens, sinkTokens, epsilon }), options);
}

/**
 * Standard deviation over the channels of each token of a partition, normalised by the next; with
 * n - 1 below, and 0 for a single channel.
 */
function spreads(rows: HeadRows, start: number, lag: number, epsilon: number): Float64Array {
  const { values, headDim, width, row } = rows;
  const least = new Float64Array(headDim).fill(Infinity);
  const range = new Float64Array(headDim).fill(-Infinity);
  for (let token = start + lag; token < start + 2 * lag; token++) {
    const from = (token * width + row) * headDim;
    for (let channel = 0; channel < headDim; channel++) {
      const value = values[from + channel] ?? NaN;
      least[channel] = Math.min(least[channel] ?? NaN, value);
      range[channel] = Math.max(range[channel] ?? NaN, value);
    }
  }
  for (let channel = 0; channel < headDim; channel++) {
    range[channel] = Math.max((range[channel] ?? NaN) - (least[channel] ?? NaN), epsilon);
  }
  const normalised = new Float64Array(headDim);
  const result = new Float64Array(lag);
  for (let i = 0; i < lag; i++) {
    const from = ((start + i) * width + row) * headDim;
    let sum = 0;
    for (let channel = 0; channel < headDim; channel++) {
      const above = (values[from + channel] ?? NaN) - (least[channel] ?? NaN);
      normalised[channel] = above / (range[channel] ?? NaN);
      sum += normalised[channel] ?? NaN;
    }
    const mean = sum / headDim;
    let squares = 0;
    for (let channel = 0; channel < headDim; channel++) {
      squares += ((normalised[channel] ?? NaN) - mean) ** 2;
    }
    result[i] = Math.sqrt(squares / Math.max(1, headDim - 1));
  }
  return result;
}

/** Place of each weight in ascending order. */
function ranks(weights: Float64Array): Uint32Array {
  const order = Uint32Array.from(weights, (_, i) => i);
  order.sort((a, b) => (weights[a] ?? NaN) - (weights[b] ?? NaN) || a - b);
  const out = new Uint32Array(weights.length);
  order.forEach((i, rank) => {
    out[i] = rank;
  });
  return out;
}
