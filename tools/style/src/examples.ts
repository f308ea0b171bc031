/**
 * Finds the TypeScript examples of a text: fenced `ts` blocks of Markdown, and those of `@example`
 * tags in doc comments.
 *
 * An example is a whole module: it imports what it uses, so that a reader can paste it and the
 * compiler can check it. A fenced `text` block right below it is what it prints.
 */

/** One example and where it stands. */
export interface Example {
  /** Path of the file it was found in, from the workspace root. */
  readonly path: string;
  /** 1-based line of its first line of code. */
  readonly line: number;
  /** The code, without comment stars and indentation. */
  readonly code: string;
  /** What it prints, with the final line break; empty where the text says nothing. */
  readonly output: string;
}

interface Fence {
  readonly language: string;
  /** Index of the line that opens it. */
  readonly start: number;
  /** Index of the line that closes it. */
  readonly end: number;
  readonly content: string;
}

/**
 * Examples of one file in order.
 * @throws Error for a fence that does not end.
 */
export function findExamples(path: string, text: string): Example[] {
  const fences = findFences(path, text.split('\n'));
  return fences.flatMap((fence, index) => {
    if (fence.language !== 'ts') return [];
    const next = fences[index + 1];
    const isOutput = next?.language === 'text' && next.start - fence.end <= 2;
    const output = isOutput ? `${next.content}\n` : '';
    return [{ path, line: fence.start + 2, code: fence.content, output }];
  });
}

function findFences(path: string, lines: readonly string[]): Fence[] {
  const fences: Fence[] = [];
  for (let start = 0; start < lines.length; start += 1) {
    const opening = /^(\s*(?:\* ?)?)```(\w+)\s*$/.exec(lines[start] ?? '');
    if (opening === null) continue;
    const [, prefix = '', language = ''] = opening;
    const end = lines.findIndex((line, at) => at > start && /^\s*(?:\* ?)?```\s*$/.test(line));
    if (end < 0) throw new Error(`${path}:${start + 1}: the ${language} block does not end`);
    // A bare ` *` is an empty line of a doc comment: its trailing blank is gone.
    const content = lines.slice(start + 1, end).map((line) => {
      return line.startsWith(prefix) ? line.slice(prefix.length) : line.replace(/^\s*\*?\s*/, '');
    });
    fences.push({ language, start, end, content: content.join('\n') });
    start = end;
  }
  return fences;
}
