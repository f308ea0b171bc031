/**
 * Progress on a terminal: one line rewritten in place; plain lines where output is not a terminal.
 */
import type { RunListener } from './run-policies.js';

const BAR = 24;
const LINE_EVERY_MS = 5000;

/** Prints phases, progress and tokens to standard output. */
export class Terminal implements RunListener {
  readonly #isTerminal = process.stdout.isTTY === true;
  readonly #sample: () => void;
  #phase = '';
  #lastLine = 0;
  #lastText = '';
  #open = false;

  /** @param sample Called whenever something may have changed on the device. */
  constructor(sample: () => void) {
    this.#sample = sample;
  }

  /** Prints a line of its own. */
  line(text: string): void {
    this.#close();
    process.stdout.write(`${text}\n`);
  }

  phase(name: string): void {
    this.#phase = name;
    this.#lastLine = performance.now();
    if (name.startsWith('answer ')) this.line(`\n[${name.slice(7)}]`);
  }

  progress(done: number, total: number, unit: string): void {
    const now = performance.now();
    const share = total === 0 ? 1 : done / total;
    const text = `${this.#phase}: ${done}/${total} ${unit} (${(share * 100).toFixed(0)} %)`;
    if (this.#isTerminal) {
      const filled = Math.round(share * BAR);
      const bar = `[${'='.repeat(filled)}${' '.repeat(BAR - filled)}]`;
      process.stdout.write(`\r\x1b[2K${bar} ${text}`);
      this.#open = true;
      if (done >= total) this.#close();
    } else if (done >= total || now - this.#lastLine > LINE_EVERY_MS) {
      if (text !== this.#lastText) process.stdout.write(`${text}\n`);
      this.#lastLine = now;
      this.#lastText = text;
    }
  }

  token(text: string): void {
    process.stdout.write(text);
  }

  answerEnd(): void {
    process.stdout.write('\n');
  }

  sample(): void {
    this.#sample();
  }

  #close(): void {
    if (this.#open) process.stdout.write('\n');
    this.#open = false;
  }
}
