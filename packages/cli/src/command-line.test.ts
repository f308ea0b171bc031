/** Arguments to options, hints, help and exit codes, with a command that only notes its options. */
import { VramError } from '@vramkit/core';
import { describe, expect, it } from 'vitest';
import { editDistance } from './command-line.js';
import type { Command, OptionValues } from './command-line.js';
import { runCaptured } from './testing/run-captured.js';

interface Outcome {
  exitCode: number;
  out: string;
  err: string;
  given: OptionValues | undefined;
}

async function runWith(
  args: string[],
  run: () => Promise<number> = () => Promise.resolve(0),
): Promise<Outcome> {
  let given: OptionValues | undefined;
  const command: Command = {
    name: 'measure',
    summary: 'measure something',
    options: {
      json: { type: 'boolean', summary: 'print JSON' },
      file: { type: 'string', value: 'PATH', summary: 'where to write' },
    },
    examples: [['vramkit measure --json', 'as JSON']],
    run: (options) => {
      given = options;
      return run();
    },
  };
  const { status: exitCode, out, err } = await runCaptured(args, [command]);
  return { exitCode, out, err, given };
}

describe('command line', () => {
  it.each([
    [['measure'], {}],
    [['measure', '--json'], { json: true }],
    [['measure', '--file', 'a b'], { file: 'a b' }],
    [['measure', '--file=--x', '--json'], { file: '--x', json: true }],
  ])('%j gives options %j', async (args, options) => {
    const outcome = await runWith(args);
    expect(outcome).toMatchObject({ exitCode: 0, given: options, err: '' });
  });

  it.each([
    [['mesure'], "Unknown command 'mesure'. Did you mean 'measure'?"],
    [['xyzzy-plugh'], "Unknown command 'xyzzy-plugh'.\n"],
    [['--jsn'], "Unknown option '--jsn'."],
    [['measure', '--jsn'], "Unknown option '--jsn'. Did you mean '--json'?"],
    [['measure', '-j'], "Unknown option '-j'."],
    [['measure', '--toString'], "Unknown option '--toString'."],
    [['measure', '--file'], "Option '--file' needs a value."],
    [['measure', '--file', '--json'], "Option '--file' needs a value."],
    [['measure', '--json=yes'], "Option '--json' takes no value, got 'yes'."],
    [['measure', 'now'], "'measure' takes no argument, got 'now'."],
    [['help', 'mesure'], "Unknown command 'mesure'. Did you mean 'measure'?"],
  ])('%j is a usage error with a hint', async (args, message) => {
    const outcome = await runWith(args);
    expect(outcome).toMatchObject({ exitCode: 2, given: undefined, out: '' });
    expect(outcome.err).toContain(message);
    expect(outcome.err).toMatch(/Try 'vramkit( measure)? --help'\.\n$/);
  });

  it('without a command shows help as an error, and with --help as an answer', async () => {
    const none = await runWith([]);
    const asked = await runWith(['--help']);
    expect(none.exitCode).toBe(2);
    expect(asked.exitCode).toBe(0);
    expect(asked.out).toBe(none.err);
    expect(asked.out).toMatch(
      /measure {2}measure something[\s\S]*vramkit measure --json {2}as JSON/,
    );
  });

  it.each([[['measure', '--help']], [['help', 'measure']], [['measure', '--json', '--help']]])(
    '%j shows every option of the command and does not run it',
    async (args) => {
      const { exitCode, out, given } = await runWith(args);
      expect({ exitCode, given }).toEqual({ exitCode: 0, given: undefined });
      expect(out).toMatch(/--json +print JSON\n +--file PATH +where to write\n +--help/);
    },
  );

  it('shows the version', async () => {
    expect(await runWith(['--version'])).toMatchObject({ exitCode: 0, out: '1.2.3\n' });
  });

  it('passes on the exit code of a command and reports what it throws', async () => {
    expect((await runWith(['measure'], () => Promise.resolve(1))).exitCode).toBe(1);
    const failing = await runWith(['measure'], () =>
      Promise.reject(new VramError('not-found', "no file 'x'")),
    );
    expect(failing).toMatchObject({ exitCode: 1, err: "vramkit: not-found: no file 'x'\n" });
  });
});

describe('edit distance', () => {
  it.each([
    ['', '', 0],
    ['', 'abc', 3],
    ['doctor', 'doctor', 0],
    ['doctro', 'doctor', 2],
    ['kitten', 'sitting', 3],
  ])('of "%s" and "%s" is %i, both ways', (from, to, distance) => {
    expect(editDistance(from, to)).toBe(distance);
    expect(editDistance(to, from)).toBe(distance);
  });
});
