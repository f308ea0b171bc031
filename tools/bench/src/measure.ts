/**
 * Measures one subject and its rivals in turn, so that a ratio compares the same minutes of one
 * machine.
 *
 * A round runs every side once, and each round starts with another side: a machine that slows down
 * for a while slows all of them, and no side always runs in another's wake. Figures of two separate
 * runs are never compared; on a shared machine they differ by two times and more.
 *
 * A rival that fails is left out from then on, with the reason kept; it never ends the measurement.
 * The subject's own failure does.
 */

/** Runs a side once and gives its figure, such as tokens/s or milliseconds. */
export type Measure = () => Promise<number>;

/** Median and range of the figures of one side. */
export interface Summary {
  /** The middle figure; of an even count, the mean of the middle two. */
  readonly median: number;
  /** The least figure. */
  readonly min: number;
  /** The greatest figure. */
  readonly max: number;
  /** How many figures there were. */
  readonly runs: number;
}

/** Options of {@link measureInTurn}. */
export interface InTurnOptions {
  /** Rounds that count, at least {@link leastRuns}. Default: {@link leastRuns}. */
  readonly runs?: number;
  /** Rounds before them that do not count: compilation, caches, clocks. Default: 1. */
  readonly warmUps?: number;
}

/** What {@link measureInTurn} found. */
export interface Measured {
  /** The subject. */
  readonly ours: Summary;
  /** The rivals that ran through, by name. */
  readonly peers: Readonly<Record<string, Summary>>;
  /** The rivals that did not, with the reason. */
  readonly failures: Readonly<Record<string, string>>;
}

/** The fewest runs that a reported median may rest on. */
export const leastRuns = 5;

/**
 * The median.
 * @throws RangeError where `values` is empty or holds something that is not a finite number.
 */
export function median(values: readonly number[]): number {
  return summarize(values).median;
}

/**
 * Median and range.
 * @throws RangeError where `values` is empty or holds something that is not a finite number.
 */
export function summarize(values: readonly number[]): Summary {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  const lower = sorted.length % 2 === 1 ? upper : sorted[middle - 1];
  const min = sorted[0];
  const max = sorted[sorted.length - 1];
  if (upper === undefined || lower === undefined || min === undefined || max === undefined) {
    throw new RangeError('a median needs at least one figure');
  }
  const strange = values.find((value) => !Number.isFinite(value));
  if (strange !== undefined) throw new RangeError(`a figure is ${strange}`);
  return { median: (lower + upper) / 2, min, max, runs: sorted.length };
}

interface Side {
  readonly name: string;
  readonly measure: Measure;
  readonly figures: number[];
  failure: string | undefined;
}

/**
 * Runs all sides in turn: first the warm-up rounds, then the rounds that count.
 *
 * @throws RangeError where fewer than {@link leastRuns} runs are asked for.
 * @throws whatever the subject throws.
 */
export async function measureInTurn(
  sides: { readonly ours: Measure; readonly peers?: Readonly<Record<string, Measure>> },
  options: InTurnOptions = {},
): Promise<Measured> {
  const { runs = leastRuns, warmUps = 1 } = options;
  if (!Number.isInteger(runs) || runs < leastRuns) {
    throw new RangeError(`${runs} runs; a median rests on at least ${leastRuns}`);
  }
  const side = (name: string, measure: Measure): Side => ({
    name,
    measure,
    figures: [],
    failure: undefined,
  });
  const ours = side('ours', sides.ours);
  const peers = Object.entries(sides.peers ?? {}).map(([name, measure]) => side(name, measure));
  const all = [ours, ...peers];
  for (let round = -warmUps; round < runs; round += 1) {
    const first = Math.max(0, round) % all.length;
    for (const each of [...all.slice(first), ...all.slice(0, first)]) {
      if (each.failure === undefined) await runOnce(each, round >= 0, each === ours);
    }
  }
  const whole = peers.filter((peer) => peer.failure === undefined);
  const broken = peers.filter((peer) => peer.failure !== undefined);
  return {
    ours: summarize(ours.figures),
    peers: Object.fromEntries(whole.map((peer) => [peer.name, summarize(peer.figures)])),
    failures: Object.fromEntries(broken.map((peer) => [peer.name, peer.failure ?? ''])),
  };
}

async function runOnce(side: Side, counts: boolean, isSubject: boolean): Promise<void> {
  try {
    const figure = await side.measure();
    if (!Number.isFinite(figure)) throw new RangeError(`the figure is ${figure}`);
    if (counts) side.figures.push(figure);
  } catch (error) {
    if (isSubject) throw error;
    side.failure = error instanceof Error ? error.message : String(error);
  }
}
