/** A bar on a terminal, plain lines in a log. */
import { Readable } from 'node:stream';
import { expect, it } from 'vitest';
import type { Terminal } from './command-line.js';
import { createProgress, type Progress } from './progress.js';

function written(interactive: boolean, work: (progress: Progress) => void, columns = 60): string {
  let text = '';
  const terminal: Terminal = {
    input: Readable.from([]),
    out: () => expect.unreachable('progress is no result'),
    bytes: () => Promise.resolve(),
    err: (each) => void (text += each),
    colours: false,
    interactive,
    columns,
    version: '1.2.3',
  };
  work(createProgress(terminal));
  return text;
}

it('writes one line over on a terminal, and clears it', () => {
  const text = written(true, (progress) => {
    progress.step('opening');
    progress.part(0, 8, 'a');
    progress.part(4, 8, 'b');
    progress.part(8, 8, 'c');
    progress.end();
    progress.end();
  });
  expect(text.split('\r\x1b[K')).toEqual([
    '',
    'opening',
    `[${'.'.repeat(24)}]   0 %  a`,
    `[${'#'.repeat(12)}${'.'.repeat(12)}]  50 %  b`,
    `[${'#'.repeat(24)}] 100 %  c`,
    '',
  ]);
});

it('never wraps a line of a narrow terminal', () => {
  const text = written(true, (progress) => progress.part(1, 2, 'a name that is long'), 20);
  expect(text.replace('\r\x1b[K', '')).toHaveLength(19);
});

it('writes a plain line a step and one each tenth elsewhere', () => {
  const text = written(false, (progress) => {
    progress.step('opening');
    progress.step('opening');
    for (let done = 0; done <= 1000; done += 1) progress.part(done, 1000, 'x');
    progress.part(1, 0, 'nothing known');
    progress.end();
  });
  const tenths = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map((tenth) => `${10 * tenth} %  x\n`);
  expect(text).toBe(`opening\n${tenths.join('')}`);
});
