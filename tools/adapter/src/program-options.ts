/**
 * The command line of a small program of this workspace: options by their defaults, `--help`, and a
 * line instead of a stack for what is not known.
 */
import { fail, isVramError } from '@vramkit/core';
import { parseFlags } from './parse-flags.js';

/** A flag is `false`, an option with a whole number a number, any other a text or `undefined`. */
export type OptionDefaults = Readonly<Record<string, string | number | false | undefined>>;

/** What was given, or the default. */
export type OptionValues<Defaults extends OptionDefaults> = {
  readonly [Name in keyof Defaults]: Defaults[Name] extends number
    ? number
    : Defaults[Name] extends false
      ? boolean
      : Defaults[Name] extends string
        ? string
        : string | undefined;
};

/**
 * Reads options.
 * @throws VramError `invalid-argument` for an option that is not known, one without its value, or a
 * number that is none.
 */
export function parseOptions<const Defaults extends OptionDefaults>(
  args: readonly string[],
  defaults: Defaults,
): OptionValues<Defaults> | 'help' {
  const types = Object.entries({ ...defaults, help: false }).map(
    ([name, value]) => [name, { type: value === false ? 'boolean' : 'string' }] as const,
  );
  const { values } = parseFlags({ args: [...args], options: Object.fromEntries(types) });
  if (values['help'] === true) return 'help';
  const given = Object.entries(values).map(([name, value]) => {
    if (typeof defaults[name] !== 'number') return [name, value];
    if (!/^\d+$/.test(String(value))) {
      fail('invalid-argument', `--${name} takes a whole number, not '${String(value)}'`);
    }
    return [name, Number(value)];
  });
  // Each is of the type of its default, by the lines above.
  return { ...defaults, ...Object.fromEntries(given) } as OptionValues<Defaults>;
}

/** Options of this process. Ends it after `--help`, with 0, and after what is not known, with 2. */
export function programOptions<const Defaults extends OptionDefaults>(
  usage: string,
  defaults: Defaults,
): OptionValues<Defaults> {
  try {
    const options = parseOptions(process.argv.slice(2), defaults);
    if (options !== 'help') return options;
    process.stdout.write(`${usage}\n`);
    process.exit(0);
  } catch (error) {
    if (!isVramError(error, 'invalid-argument')) throw error;
    process.stderr.write(`${error.message}\n\n${usage}\n`);
    process.exit(2);
  }
}
