/**
 * What counts as agreement with llama.cpp, as pure functions over both sides' figures.
 *
 * Perplexity: within 1 %. The sides never agree exactly: llama.cpp's CPU kernels round
 * activations to 8 bits before they multiply 4-bit weights, ours keep floats.
 *
 * Greedy continuations: a common beginning of at least 16 tokens in all prompts but one. A step
 * whose two best tokens are nearly as likely is decided by that rounding: llama.cpp disagrees
 * with itself there under another setting of its attention. Both sides' two best tokens are
 * therefore shown where they part.
 */

/** The largest relative difference of perplexities. */
export const perplexityBand = 0.01;
/** Tokens that a continuation must have in common from its beginning. */
export const commonTokens = 16;
/** Prompts that may part earlier. */
export const allowedPartings = 1;

/** Two continuations of one prompt, side by side. */
export interface ContinuationComparison {
  /** Tokens in common from the beginning. */
  readonly common: number;
  /** Where they part: the index of the first difference; absent where neither has more. */
  readonly partsAt: number | undefined;
  /** Whether enough is in common. */
  readonly agrees: boolean;
}

/** Relative difference of ours from theirs. */
export function relativeDifference(ours: number, theirs: number): number {
  return Math.abs(ours - theirs) / Math.abs(theirs);
}

/** Whether two perplexities lie within {@link perplexityBand}; never where one is not a number. */
export function perplexitiesAgree(ours: number, theirs: number): boolean {
  return relativeDifference(ours, theirs) <= perplexityBand;
}

/**
 * Compares two continuations token by token. They agree where the first {@link commonTokens} are
 * the same, or where both ended before that with the same tokens.
 */
export function compareContinuations(
  ours: readonly number[],
  theirs: readonly number[],
): ContinuationComparison {
  const longest = Math.max(ours.length, theirs.length);
  let common = 0;
  while (common < longest && ours[common] === theirs[common]) common += 1;
  const partsAt = common < longest ? common : undefined;
  const agrees = ours.length > 0 && (common >= commonTokens || partsAt === undefined);
  return { common, partsAt, agrees };
}

/** Whether enough prompts agree. */
export function continuationsAgree(comparisons: readonly ContinuationComparison[]): boolean {
  const partings = comparisons.filter((each) => !each.agrees).length;
  return comparisons.length > allowedPartings && partings <= allowedPartings;
}

/** One candidate for the next token. */
export interface Candidate {
  /** Token id. */
  readonly token: number;
  /** Probability in [0, 1]. */
  readonly probability: number;
}

/**
 * The two most probable next tokens, the first one first; normalized in f64.
 * @param logits Unnormalized, [vocabulary].
 * @throws RangeError where the vocabulary has fewer than two tokens.
 */
export function topTwo(logits: Float32Array): readonly [Candidate, Candidate] {
  if (logits.length < 2) throw new RangeError(`a vocabulary of ${logits.length} tokens`);
  let best = -1;
  let second = -1;
  const logit = (token: number): number => (token < 0 ? -Infinity : (logits[token] ?? -Infinity));
  for (let token = 0; token < logits.length; token += 1) {
    if (best < 0 || logit(token) > logit(best)) {
      second = best;
      best = token;
    } else if (second < 0 || logit(token) > logit(second)) second = token;
  }
  const sum = logits.reduce((total, each) => total + Math.exp(each - logit(best)), 0);
  const candidate = (token: number): Candidate => ({
    token,
    probability: Math.exp(logit(token) - logit(best)) / sum,
  });
  return [candidate(best), candidate(second)];
}
