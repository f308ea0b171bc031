/**
 * Each rule over sources fires on a breach, with its line, and stays silent on the nearest lawful
 * text.
 */
import { describe, expect, it } from 'vitest';
import { checkSource, headComment } from './source-rules.js';

const HEAD = '/** A file that exists to be checked by the rules of this folder. */\n';
const body = (lines: number): string => '  f();\n'.repeat(lines);

function rules(text: string, path = 'packages/core/src/x.ts'): string[] {
  return checkSource(path, text).map((found) => `${found.rule}:${found.line}`);
}

describe('checkSource', () => {
  it('wants a head comment of some substance', () => {
    expect(rules('const x = 1;\n')).toEqual(['head-comment:1']);
    expect(rules('/** x */\nconst x = 1;\n')).toEqual(['head-comment:1']);
    expect(rules(`#!/usr/bin/env node\n${HEAD}const x = 1;\n`)).toEqual([]);
  });

  it('allows 400 lines, more only with a reason', () => {
    const lines = (count: number, head = HEAD): string => head + '//\n'.repeat(count - 1);
    expect(rules(lines(400))).toEqual([]);
    expect(rules(lines(401))).toEqual(['file-length:0']);
    const reason = '/** Every code of one table. Length: the table is one thing. */\n';
    expect(rules(lines(401, reason))).toEqual([]);
  });

  it('allows 100 columns, more only for an address', () => {
    expect(rules(`${HEAD}// ${'x'.repeat(97)}\n`)).toEqual([]);
    expect(rules(`${HEAD}// ${'x'.repeat(98)}\n`)).toEqual(['line-length:2']);
    expect(rules(`${HEAD}// https://example.org/${'x'.repeat(98)}\n`)).toEqual([]);
  });

  it('allows functions of 70 lines', () => {
    expect(rules(`${HEAD}function f() {\n${body(68)}}\n`)).toEqual([]);
    expect(rules(`${HEAD}function f() {\n${body(69)}}\n`)).toEqual(['function-length:2']);
    expect(rules(`${HEAD}const f = () => {\n${body(69)}};\n`)).toEqual(['function-length:2']);
  });

  it('does not count WGSL text or lists of tests as function lines', () => {
    const wgsl = `const f = () => /* wgsl */ \`\n${body(90)}\`;\n`;
    expect(rules(HEAD + wgsl)).toEqual([]);
    expect(rules(`${HEAD}const f = () => \`\n${body(90)}\`;\n`)).toEqual(['function-length:2']);
    expect(rules(`${HEAD}describe('x', () => {\n${body(90)}});\n`)).toEqual([]);
    expect(rules(`${HEAD}it('x', () => {\n${body(90)}});\n`)).toEqual(['function-length:2']);
  });

  it('wants a comment on every export, once per overloaded name', () => {
    expect(rules(`${HEAD}\nexport const a = 1;\n`)).toEqual(['documented-export:3']);
    expect(rules(`${HEAD}\n// a\nexport type A = 1;\n`)).toEqual(['documented-export:4']);
    expect(rules(`${HEAD}\n/** One. */\nexport type A = 1;\n`)).toEqual([]);
    expect(rules(`${HEAD}export type A = 1;\n`)).toEqual(['documented-export:2']);
    const overload = 'export function f(a: 1): 1;\nexport function f(a: number): number {}\n';
    expect(rules(`${HEAD}\n/** One. */\n${overload}`)).toEqual([]);
    expect(rules(`${HEAD}\nexport const a = 1;\n`, 'packages/core/src/x.test.ts')).toEqual([]);
  });

  it('wants a comment on every option', () => {
    const options = (member: string): string =>
      `${HEAD}\n/** Options of f. */\nexport interface FOptions {\n  ${member}\n}\n`;
    expect(rules(options('readonly a: number;'))).toEqual(['documented-option:5']);
    expect(rules(options('/** Most, bytes. Default: 1. */ readonly a?: number;'))).toEqual([]);
    expect(rules(options('readonly a: number;').replace('FOptions', 'F'))).toEqual([]);
  });

  it('wants a comment near a cast in published code', () => {
    expect(rules(`${HEAD}\nconst a = b as C;\n`)).toEqual(['unexplained-cast:3']);
    expect(rules(`${HEAD}\n// The driver returns C.\nconst a = b as C;\n`)).toEqual([]);
    expect(rules(`${HEAD}\nconst a = [1] as const;\n`)).toEqual([]);
    expect(rules(`${HEAD}\nconst a = b as C;\n`, 'tools/x/src/x.ts')).toEqual([]);
  });

  it('keeps code out of index.ts', () => {
    const path = 'packages/core/src/index.ts';
    expect(rules(`${HEAD}export { a } from './a.js';\nexport * from './b.js';\n`, path)).toEqual(
      [],
    );
    expect(rules(`${HEAD}import './a.js';\n`, path)).toEqual(['index-only-exports:2']);
  });
});

describe('headComment', () => {
  it('takes one block or a run of line comments', () => {
    expect(headComment('// a\n// b\n\n// c\nx();')).toBe('// a\n// b\n');
    expect(headComment('\n/* a */ /* b */')).toBe('/* a */');
    expect(headComment('x(); // a')).toBe('');
  });
});
