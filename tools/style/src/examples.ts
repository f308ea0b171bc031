/**
 * Finds the TypeScript examples of a text: fenced `ts` blocks of Markdown, and those of `@example`
 * tags in doc comments.
 *
 * An example is a whole module: it imports what it uses, so that a reader can paste it and the
 * compiler can check it.
 */

/** One example and where it stands. */
export interface Example {
  /** Path of the file it was found in, from the workspace root. */
  readonly path: string;
  /** 1-based line of its first line of code. */
  readonly line: number;
  /** The code, without comment stars and indentation. */
  readonly code: string;
}

const FENCE_START = /^(\s*(?:\*\s?)?)```ts\s*$/;
const FENCE_END = /^\s*(?:\*\s?)?```\s*$/;

/** Examples of one file in order. A fence that does not end is an error of the text. */
export function findExamples(path: string, text: string): Example[] {
  const lines = text.split('\n');
  const found: Example[] = [];
  for (let index = 0; index < lines.length; index += 1) {
    const start = FENCE_START.exec(lines[index] ?? '');
    if (start === null) continue;
    const first = index + 1;
    const end = lines.findIndex((line, at) => at >= first && FENCE_END.test(line));
    if (end < 0) throw new Error(`${path}:${first}: the ts block does not end`);
    // A bare ` *` is an empty line of a doc comment; its trailing blank is gone.
    const prefix = start[1] ?? '';
    const code = lines.slice(first, end).map((line) => {
      return line.startsWith(prefix) ? line.slice(prefix.length) : line.replace(/^\s*\*?\s*/, '');
    });
    found.push({ path, line: first + 1, code: code.join('\n') });
    index = end;
  }
  return found;
}
