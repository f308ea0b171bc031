/**
 * A child process that answers one JSON line per JSON line, in order.
 *
 * One request is under way at a time. A process that dies, or does not answer in time, fails that
 * request and every later one; its last words on standard error come with the error.
 */
import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

/** How the process is started. */
export interface LineProcessOptions {
  /** Arguments for Node.js, the script among them. */
  readonly args: readonly string[];
  /** Variables on top of this process's own. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Characters of standard error that are kept for an error message. */
const keptCharacters = 2000;

/** See the head of this file. */
export class LineProcess {
  readonly #child: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #closed: Promise<void>;
  #waiting: ((result: string | Error) => void) | undefined;
  #ended: Error | undefined;
  #lastWords = '';

  constructor(options: LineProcessOptions) {
    this.#child = spawn(process.execPath, options.args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
    });
    this.#closed = new Promise((closed) => {
      this.#child.on('error', (error) => this.#end(error));
      this.#child.on('close', (code, signal) => {
        const words = this.#lastWords.trim();
        const how = signal === null ? `with code ${code}` : `by ${signal}`;
        this.#end(new Error(`the process ended ${how}${words === '' ? '' : `: ${words}`}`));
        closed();
      });
    });
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#lastWords = (this.#lastWords + text).slice(-keptCharacters);
    });
    // A process that dies takes its input with it; 'close' tells the story.
    this.#child.stdin.on('error', () => undefined);
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#settle(line));
  }

  /**
   * Sends one object and resolves with the object that answers it.
   * @throws Error where the process ended, or did not answer within `limitSeconds` and was ended.
   */
  async ask(request: object, limitSeconds: number): Promise<unknown> {
    if (this.#ended !== undefined) throw this.#ended;
    if (this.#waiting !== undefined) throw new Error('one request at a time');
    const answer = new Promise<string | Error>((settle) => (this.#waiting = settle));
    const timer = setTimeout(() => {
      this.#end(new Error(`cut after ${limitSeconds} s`));
      this.#child.kill('SIGKILL');
    }, limitSeconds * 1000);
    try {
      this.#child.stdin.write(`${JSON.stringify(request)}\n`);
      const result = await answer;
      if (result instanceof Error) throw result;
      return JSON.parse(result);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the input and waits for the process to end by itself. Idempotent. */
  async dispose(): Promise<void> {
    this.#child.stdin.end();
    await this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }

  #settle(result: string | Error): void {
    const settle = this.#waiting;
    this.#waiting = undefined;
    settle?.(result);
  }

  #end(reason: Error): void {
    this.#ended ??= reason;
    this.#settle(this.#ended);
  }
}
