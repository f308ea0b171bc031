/** A child process behind one line per line: answers, deaths, time limits. */
import { describe, expect, it } from 'vitest';
import { LineProcess } from './line-process.js';

/** Doubles `value`; ends, hangs or writes nonsense on request. */
const script = `
  const lines = require('node:readline').createInterface({ input: process.stdin });
  lines.on('line', (text) => {
    const { value, act } = JSON.parse(text);
    if (act === 'die') { console.error('no such device'); process.exit(3); }
    const answer = { doubled: value * 2, env: process.env.LINE_TEST };
    if (act !== 'hang') console.log(JSON.stringify(answer));
  });
`;
const start = () => new LineProcess({ args: ['-e', script], env: { LINE_TEST: 'set' } });

describe('LineProcess', () => {
  it('answers in order and ends when its input ends', async () => {
    const child = start();
    expect(await child.ask({ value: 2 }, 10)).toEqual({ doubled: 4, env: 'set' });
    expect(await child.ask({ value: 5 }, 10)).toEqual({ doubled: 10, env: 'set' });
    await child.dispose();
    await child.dispose();
    await expect(child.ask({ value: 1 }, 10)).rejects.toThrow('ended with code 0');
  });

  it('takes one request at a time', async () => {
    await using child = start();
    const first = child.ask({ value: 1 }, 10);
    await expect(child.ask({ value: 2 }, 10)).rejects.toThrow('one request at a time');
    expect(await first).toEqual({ doubled: 2, env: 'set' });
  });

  it('says how the process died, and fails every later request alike', async () => {
    await using child = start();
    const death = /ended with code 3: no such device/;
    await expect(child.ask({ act: 'die' }, 10)).rejects.toThrow(death);
    await expect(child.ask({ value: 1 }, 10)).rejects.toThrow(death);
  });

  it('ends a process that does not answer in time', async () => {
    await using child = start();
    expect(await child.ask({ value: 1 }, 10)).toEqual({ doubled: 2, env: 'set' });
    await expect(child.ask({ act: 'hang' }, 0.1)).rejects.toThrow('cut after 0.1 s');
    await expect(child.ask({ value: 1 }, 10)).rejects.toThrow('cut after 0.1 s');
  });
});
