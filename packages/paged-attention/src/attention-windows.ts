/**
 * Which sums a query belongs to, where a decision wants the attention of the last n queries. Pure.
 *
 * Decisions fall at known ends: at the end of a prompt, and wherever a block fills. The query at
 * position p counts for the decision at token count e where e - n <= p < e, so a step adds to one
 * sum per end that is still to come and near enough; with blocks of B tokens that is ceil(n / B)
 * sums, and one more while a prompt is read. All queries since the start are one sum without end.
 */
import { assertArgument, checkInteger } from '@vramkit/core';

/** Queries of one step of a sequence. */
export interface QuerySpan {
  /** Position of the first query: tokens that the sequence had ever seen before. */
  readonly start: number;
  /** Queries. */
  readonly count: number;
  /** Tokens after the last chunk, where the step is part of a prompt. Default: no prompt. */
  readonly promptEnd?: number;
}

/** A sum that a step adds to. */
export interface WindowSum {
  /** Token count of the decision that reads it; `Infinity` for all decisions. */
  readonly end: number;
  /** First query of the step that counts. */
  readonly firstQuery: number;
}

/**
 * The sums that a step adds to, by end.
 * @param queries Last queries that count, at least 1; `Infinity` for all.
 * @throws VramError `invalid-argument` where a number is no count.
 */
export function windowSums(queries: number, blockSize: number, span: QuerySpan): WindowSum[] {
  const { start, count, promptEnd } = span;
  assertArgument(
    queries === Infinity || (Number.isSafeInteger(queries) && queries > 0),
    `queries must be a positive integer or Infinity, got ${queries}`,
  );
  checkInteger('blockSize', blockSize, 1);
  const end = checkInteger('start', start) + checkInteger('count', count, 1);
  if (queries === Infinity) return [{ end: Infinity, firstQuery: 0 }];
  const ends = promptEnd === undefined || promptEnd < end ? [] : [promptEnd];
  const after = Math.max(end, (promptEnd ?? end - 1) + 1);
  for (let at = Math.ceil(after / blockSize) * blockSize; at < end + queries; at += blockSize) {
    ends.push(at);
  }
  return ends
    .filter((at) => at < end + queries)
    .map((at) => ({ end: at, firstQuery: Math.max(0, at - queries - start) }));
}
