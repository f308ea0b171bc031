/** Flags of a command line, by Node's parser, with an error that a program shows as it is. */
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { fail, VramError } from '@vramkit/core';

/**
 * Node's `parseArgs`, with an error of this workspace.
 * @throws VramError `invalid-argument` for an option that is not known, or one without its value.
 */
export function parseFlags<const Config extends ParseArgsConfig>(
  config: Config,
): ReturnType<typeof parseArgs<Config>> {
  try {
    return parseArgs(config);
  } catch (cause) {
    if (!(cause instanceof TypeError)) throw cause;
    throw new VramError('invalid-argument', `${cause.message}; see --help`, { cause });
  }
}

/**
 * The whole number that `flag` was given as `text`.
 * @throws VramError `invalid-argument` naming the flag, the range and what was given.
 */
export function parseWhole(
  flag: string,
  text: string,
  { least = 0, most }: { readonly least?: number; readonly most: number },
): number {
  const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (value >= least && value <= most) return value;
  return fail(
    'invalid-argument',
    `${flag} takes a whole number in [${least}, ${most}], not '${text}'`,
  );
}
