/** Flags of a command line, by Node's parser, with an error that a program shows as it is. */
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { VramError } from '@vramkit/core';

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
