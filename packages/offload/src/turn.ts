/**
 * What reads or changes all state of an optimizer takes turns: steps, and reads and writes of the
 * state. Nothing waits for its turn, because a caller that starts two things at once has not said
 * which is first: the second one is refused.
 */
import { assertArgument } from '@vramkit/core';

/** What takes a turn. */
export type TurnName = 'step' | 'readState' | 'writeState';

/** One thing at a time; see the head of this file. */
export class Turn {
  #holder: TurnName | undefined;
  #ended: Promise<unknown> = Promise.resolve();

  /** @throws VramError `invalid-argument` during any of `names`. */
  assertNot(...names: TurnName[]): void {
    const holder = this.#holder;
    assertArgument(holder === undefined || !names.includes(holder), `${holder}() is under way`);
  }

  /** Runs `run`. @throws VramError `invalid-argument` during anything else; what `run` throws. */
  async take<T>(name: TurnName, run: () => Promise<T>): Promise<T> {
    this.assertNot('step', 'readState', 'writeState');
    this.#holder = name;
    const running = run();
    this.#ended = running.catch(() => undefined);
    try {
      return await running;
    } finally {
      this.#holder = undefined;
    }
  }

  /** Resolves when what is under way has ended, however it did. */
  async ended(): Promise<void> {
    await this.#ended;
  }
}
