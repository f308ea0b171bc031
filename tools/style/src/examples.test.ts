/** Examples come out as code, with the line to go to when one is wrong. */
import { expect, it } from 'vitest';
import { findExamples } from './examples.js';

it('finds the blocks of Markdown', () => {
  const text = 'a\n```ts\nlet x = 1;\n\nx;\n```\n```sh\nnpm ci\n```\n```ts\ny;\n```\n';
  expect(findExamples('a.md', text)).toEqual([
    { path: 'a.md', line: 3, code: 'let x = 1;\n\nx;' },
    { path: 'a.md', line: 11, code: 'y;' },
  ]);
});

it('takes the stars off the blocks of doc comments', () => {
  const text =
    '  /**\n   * @example\n   * ```ts\n   * if (x) {\n   *   y();\n   *\n   * }\n   * ```\n   */\n';
  expect(findExamples('a.ts', text)).toEqual([
    { path: 'a.ts', line: 4, code: 'if (x) {\n  y();\n\n}' },
  ]);
});

it('reports a block without an end', () => {
  expect(() => findExamples('a.md', '```ts\nx\n')).toThrow('a.md:1');
});
