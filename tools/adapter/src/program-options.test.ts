/** Command lines of programs: defaults, types, and what is refused. */
import { VramError } from '@vramkit/core';
import { describe, expect, it } from 'vitest';
import { parseOptions } from './program-options.js';

const defaults = { model: 'tiny-moe', windows: 12, quick: false, store: undefined } as const;

describe('parseOptions', () => {
  it('gives what was given, by the type of its default, and the rest', () => {
    expect(parseOptions([], defaults)).toEqual(defaults);
    const words = ['--windows', '3', '--quick', '--store=./a', '--model', 'smollm2'];
    const given = { model: 'smollm2', windows: 3, quick: true, store: './a' };
    expect(parseOptions(words, defaults)).toEqual(given);
  });

  it('knows help', () => {
    expect(parseOptions(['--quick', '--help'], defaults)).toBe('help');
  });

  it('refuses what it does not know, and numbers that are none', () => {
    const refused = [['--slow'], ['word'], ['--model'], ['--windows', 'x'], ['--windows=-1']];
    for (const words of refused) expect(() => parseOptions(words, defaults)).toThrow(VramError);
  });
});
