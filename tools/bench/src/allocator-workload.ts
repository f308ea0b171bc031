/**
 * The workload of the allocator benchmark: sequences of random length that come and go.
 *
 * xorshift32 (13, 17, 5) from seed 0x9E3779B9 draws `1 + r % 512` blocks for each sequence, 256 on
 * average. While it does not fit, a random live sequence is freed; then it is allocated. The figure
 * is time per block, which covers one block's allocation and, in the long run, its release. The
 * generator and its seed are those of the published figures of other allocators.
 */

/** The blocks of a token, fixed for all cases. */
export const blockSize = 16;
/** The most blocks of one sequence. */
export const mostBlocks = 512;

/** A stream of 32-bit numbers. */
export function xorshift32(): () => number {
  let state = 0x9e37_79b9 | 0;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** Something that gives out blocks: ours or a rival's. */
export interface Churned<Sequence> {
  /** Takes `count` blocks, or none. */
  readonly allocate: (count: number) => Sequence | undefined;
  readonly free: (sequence: Sequence) => void;
}

/** Runs the workload; each call goes on where the last one stopped. */
export function churn<Sequence>(subject: Churned<Sequence>): (blocks: number) => number {
  const random = xorshift32();
  const live: Sequence[] = [];
  return (blocks) => {
    let done = 0;
    while (done < blocks) {
      const count = 1 + (random() % mostBlocks);
      let sequence = subject.allocate(count);
      while (sequence === undefined) {
        const index = random() % live.length;
        const victim = live[index];
        const last = live.pop();
        if (victim === undefined || last === undefined) throw new Error('nothing left to free');
        if (index < live.length) live[index] = last;
        subject.free(victim);
        sequence = subject.allocate(count);
      }
      live.push(sequence);
      done += count;
    }
    return done;
  };
}

/**
 * Nanoseconds of processor time that `work` takes per unit of what it returns. Time that others had
 * the core does not count; the collector's threads do.
 */
export function timePer(work: () => number): number {
  const start = process.cpuUsage();
  const units = work();
  const { user, system } = process.cpuUsage(start);
  return ((user + system) * 1000) / units;
}

/** Prompts: random tokens, told apart by their first one. */
export class Prompts {
  readonly #tokens: Uint32Array;
  readonly #starts: number;

  constructor() {
    const random = xorshift32();
    this.#starts = 16;
    const most = mostBlocks * blockSize + 1;
    this.#tokens = Uint32Array.from({ length: most * this.#starts }, () => random() % 128_000);
  }

  /** `blocks` full blocks and a token; equal for equal `name`, valid until the next call. */
  get(name: number, blocks: number): Uint32Array {
    const most = mostBlocks * blockSize + 1;
    const start = (name % this.#starts) * most;
    this.#tokens[start] = name;
    return this.#tokens.subarray(start, start + blocks * blockSize + 1);
  }
}
