/**
 * How far a command is: on a terminal one line that is written over, with a bar where the whole is
 * known; elsewhere plain lines, one a step and one for each tenth of the whole, so that a log shows
 * a run without thousands of lines.
 */
import type { Terminal } from './command-line.js';

const BAR_WIDTH = 24;

/** Shows progress of one command. */
export interface Progress {
  /** Says what goes on, where the whole is not known. */
  readonly step: (text: string) => void;
  /** Says how much of the whole is done. Nothing is shown of a whole of 0. */
  readonly part: (done: number, total: number, text: string) => void;
  /** Clears the line; call it before a result is printed, also after a failure. */
  readonly end: () => void;
}

/** Progress on standard error of a terminal. */
export function createProgress(terminal: Terminal): Progress {
  const { err, interactive, columns } = terminal;
  let last = '';
  let tenth = 0;
  const line = (text: string): void => {
    if (text === last) return;
    last = text;
    err(interactive ? `\r\x1b[K${text.slice(0, Math.max(1, columns - 1))}` : `${text}\n`);
  };
  return {
    step: line,
    part(done, total, text) {
      if (!(total > 0)) return;
      const share = Math.min(1, Math.max(0, done / total));
      const percent = `${Math.floor(100 * share)} %`.padStart(5);
      if (interactive) {
        const filled = Math.floor(BAR_WIDTH * share);
        const bar = `${'#'.repeat(filled)}${'.'.repeat(BAR_WIDTH - filled)}`;
        return line(`[${bar}] ${percent}  ${text}`);
      }
      const reached = Math.floor(10 * share);
      if (reached < tenth) tenth = 0;
      if (reached === tenth) return;
      tenth = reached;
      line(`${percent.trimStart()}  ${text}`);
    },
    end() {
      if (interactive && last !== '') err('\r\x1b[K');
      last = '';
      tenth = 0;
    },
  };
}
