/**
 * Pins: prefixes that stay whatever the load, such as a system prompt. A pin holds a reference of
 * each block, so that no block of it is ever free; a cap keeps pins from starving the rest.
 *
 * Blocks that two pins share count once. A pin does not age; who wants that gives the prefix a rank
 * instead, which decays.
 */
import { checkInteger, fail } from '@vramkit/core';
import type { BlockPool } from './block-pool.js';
import { at, type IndexList } from './index-array.js';

/** Pinned blocks of a pool. */
export class BlockPins {
  readonly #pool: BlockPool;
  readonly #maxBlocks: number;
  readonly #pins = new Map<number, Uint32Array>();
  readonly #holders = new Map<number, number>();
  #nextPin = 1;

  /** @param maxBlocks The cap, in blocks. */
  constructor(pool: BlockPool, maxBlocks: number) {
    this.#pool = pool;
    this.#maxBlocks = checkInteger('maxPinnedBlocks', maxBlocks, 0, pool.blockCount);
  }

  /** Blocks that are pinned. */
  get blockCount(): number {
    return this.#holders.size;
  }

  /**
   * Pins blocks that somebody holds or the pool keeps; `ids` holds none twice.
   * @returns A handle, or `undefined` where that would exceed the cap; nothing has changed then.
   */
  tryPin(ids: IndexList): number | undefined {
    let fresh = 0;
    for (let index = 0; index < ids.length; index++) {
      if (!this.#holders.has(at(ids, index))) fresh++;
    }
    if (this.#holders.size + fresh > this.#maxBlocks) return undefined;
    const pinned = Uint32Array.from(ids);
    for (const id of pinned) {
      this.#pool.hold(id);
      this.#holders.set(id, (this.#holders.get(id) ?? 0) + 1);
    }
    const pin = this.#nextPin++;
    this.#pins.set(pin, pinned);
    return pin;
  }

  /** Takes a pin back. @throws VramError `not-found` for an unknown one. */
  unpin(pin: number): void {
    const ids = this.#pins.get(pin) ?? fail('not-found', `there is no pin ${pin}`, { pin });
    this.#pins.delete(pin);
    for (const id of ids) {
      const left = (this.#holders.get(id) ?? 0) - 1;
      if (left === 0) this.#holders.delete(id);
      else this.#holders.set(id, left);
    }
    this.#pool.free(ids);
  }

  /** Blocks by pin, as plain data. */
  save(): readonly (readonly [number, readonly number[]])[] {
    return [...this.#pins].map(([pin, ids]) => [pin, [...ids]]);
  }

  /** Takes over pins of a state; the pool must hold their references. */
  restore(pins: readonly (readonly [number, readonly number[]])[]): void {
    for (const [pin, ids] of pins) {
      this.#pins.set(pin, Uint32Array.from(ids));
      for (const id of ids) this.#holders.set(id, (this.#holders.get(id) ?? 0) + 1);
      this.#nextPin = Math.max(this.#nextPin, pin + 1);
    }
  }

  /** Takes all pins back. */
  unpinAll(): void {
    for (const pin of [...this.#pins.keys()]) this.unpin(pin);
  }
}
