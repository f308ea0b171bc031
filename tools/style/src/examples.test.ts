/** Examples come out as code, with the line to go to when one is wrong, and what they print. */
import { expect, it } from 'vitest';
import { findExamples } from './examples.js';

it('finds the blocks of Markdown', () => {
  const text = 'a\n```ts\nlet x = 1;\n\nx;\n```\n```sh\nnpm ci\n```\n```ts\ny;\n```\n';
  expect(findExamples('a.md', text)).toEqual([
    { path: 'a.md', line: 3, code: 'let x = 1;\n\nx;', output: '' },
    { path: 'a.md', line: 11, code: 'y;', output: '' },
  ]);
});

it('takes the text block right below as the output', () => {
  const text = '```ts\nx;\n```\n\n```text\n1\n2\n```\n\n```ts\ny;\n```\n\nSo:\n\n```text\n3\n```\n';
  expect(findExamples('a.md', text).map(({ output }) => output)).toEqual(['1\n2\n', '']);
});

it('takes the stars off the blocks of doc comments', () => {
  const text = '  /**\n   * ```ts\n   * if (x) {\n   *   y();\n   *\n   * }\n   * ```\n   */\n';
  expect(findExamples('a.ts', text)).toEqual([
    { path: 'a.ts', line: 3, code: 'if (x) {\n  y();\n\n}', output: '' },
  ]);
});

it('reports a block without an end', () => {
  expect(() => findExamples('a.md', '```ts\nx\n')).toThrow('a.md:1');
});
