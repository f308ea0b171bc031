/** One number per slot, in a typed array that grows: dense ids begin anywhere. */

/** Numbers by slot; 0 where none was set. */
export class SlotNumbers {
  #values = new Float64Array(64);

  /** The number of a slot. */
  get(slot: number): number {
    return this.#values[slot] ?? 0;
  }

  /** Sets the number of a slot; growth is amortised. */
  set(slot: number, value: number): void {
    if (slot >= this.#values.length) {
      const grown = new Float64Array(Math.max(slot + 1, 2 * this.#values.length));
      grown.set(this.#values);
      this.#values = grown;
    }
    this.#values[slot] = value;
  }
}
