/** Stop strings against a search in the whole text, cut anywhere. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { StopStrings } from './stop-strings.js';

function naive(text: string, stops: readonly string[]): string {
  const found = stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0);
  return found.length === 0 ? text : text.slice(0, Math.min(...found));
}

it('gives what a search in the whole text gives, however the text is cut', () => {
  const word = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(
      fc.array(word, { maxLength: 12 }),
      fc.array(word, { maxLength: 3 }),
      (parts, stops) => {
        const filter = new StopStrings(stops);
        let given = '';
        for (const part of parts) given += filter.push(part);
        if (!filter.isStopped) given += filter.end();
        // A stop string that begins earlier may end later, after another was complete.
        const text = parts.join('');
        expect(text.startsWith(given)).toBe(true);
        expect(stops.some((stop) => given.includes(stop))).toBe(false);
        expect(filter.isStopped).toBe(naive(text, stops) !== text);
      },
    ),
  );
});

it('holds back no more than may become a stop string', () => {
  const filter = new StopStrings(['\n\n', 'END']);
  expect(filter.push('one\n')).toBe('one');
  expect(filter.push('two E')).toBe('\ntwo ');
  expect(filter.push('N')).toBe('');
  expect(filter.push('ough')).toBe('ENough');
  expect(filter.push(' END of it')).toBe(' ');
  expect(filter.isStopped).toBe(true);
  expect(filter.push('more')).toBe('');
});
