/** The command line names the option and what was given. */
import { expect, it } from 'vitest';
import { parseOptions } from './options.js';

it.each([
  [['--port', 'abc'], /--port takes a whole number in \[0, 65535\], not 'abc'/],
  [['--host', '0.0.0.0', '--api-key', ''], /--host 0\.0\.0\.0 is open to others/],
  [['--port', ''], /--port takes a whole number in \[0, 65535\], not ''/],
  [['--block-size', '7'], /--block-size takes a multiple of 4, not 7/],
  [['--block-size', '100000'], /--block-size takes a whole number in \[1, 1024\], not '100000'/],
  [['--max-sequences', '1000000'], /--max-sequences takes a whole number in \[1, 1024\]/],
  [['--kv-tokens', '1099511627776'], /--kv-tokens takes a whole number in \[1, 16777216\]/],
])('refuses %j', (args, message) => {
  expect(() => parseOptions(args, {})).toThrow(message);
});
