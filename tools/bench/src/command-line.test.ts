/** The command line that benchmarks and studies share. */
import { resolve } from 'node:path';
import { VramError } from '@vramkit/core';
import { describe, expect, it } from 'vitest';
import { parseCommandLine } from './command-line.js';

describe('parseCommandLine', () => {
  const folder = resolve('somewhere');

  it('reads the name and the options in any order', () => {
    const json = resolve(folder, 'a/b.json');
    const expected = { name: 'decode', quick: true, help: false, only: 'files', json };
    const words = ['decode', '--json', 'a/b.json', '--quick', '--only', 'files'];
    expect(parseCommandLine(words, folder)).toEqual(expected);
    const others = ['--quick', '--only=files', '--json=a/b.json', 'decode'];
    expect(parseCommandLine(others, folder)).toEqual(expected);
  });

  it('leaves out what is not given', () => {
    expect(parseCommandLine([], folder)).toEqual({
      name: undefined,
      quick: false,
      help: false,
      only: undefined,
      json: undefined,
    });
  });

  it('knows help', () => {
    expect(parseCommandLine(['--help'], folder).help).toBe(true);
  });

  it('rejects what it does not know', () => {
    expect(() => parseCommandLine(['--slow'], folder)).toThrow(VramError);
    expect(() => parseCommandLine(['decode', '--json'], folder)).toThrow(VramError);
    expect(() => parseCommandLine(['decode', 'encode'], folder)).toThrow('encode');
  });
});
