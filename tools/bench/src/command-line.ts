/**
 * What every benchmark and study takes on its command line, and what each of their files exports.
 */
import { resolve } from 'node:path';
import { parseFlags } from '@vramkit/adapter';
import { fail } from '@vramkit/core';
import type { BenchResult } from './report.js';

/** The options that all of them share. */
export interface BenchOptions {
  /** Smaller workloads and fewer rivals; medians still rest on as many runs. */
  readonly quick: boolean;
  /** The one of its {@link Bench.parts} to run. Default: all. */
  readonly only?: string | undefined;
  /** Tells the person at the terminal what goes on. */
  readonly log: (line: string) => void;
}

/** What a `<name>.bench.ts` exports. */
export interface Bench {
  /** The question that it answers, with the goal. */
  readonly question: string;
  /** Names of the parts that can be run alone. Default: it has none. */
  readonly parts?: readonly string[];
  /** Measures. */
  readonly run: (options: BenchOptions) => Promise<readonly BenchResult[]>;
}

/** A parsed command line. */
export interface CommandLine {
  /** The benchmark's name; absent where none was given. */
  readonly name: string | undefined;
  /** Whether `--quick` was given. */
  readonly quick: boolean;
  /** Whether `--help` was given. */
  readonly help: boolean;
  /** The part of `--only`; absent where none was given. */
  readonly only: string | undefined;
  /** Absolute path of `--json FILE`, read from where the person called npm. */
  readonly json: string | undefined;
}

/**
 * Reads `NAME [--only PART] [--json FILE] [--quick]`.
 *
 * @param folder Where relative paths start: npm runs a workspace's script in the workspace's own
 * folder and leaves the caller's in `INIT_CWD`.
 * @throws VramError `invalid-argument` for an unknown option, a missing value or a second name.
 */
export function parseCommandLine(args: readonly string[], folder: string): CommandLine {
  const { values, positionals } = parseFlags({
    args: [...args],
    allowPositionals: true,
    options: {
      json: { type: 'string' },
      only: { type: 'string' },
      quick: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  const [name, ...others] = positionals;
  if (others.length > 0)
    fail('invalid-argument', `one name, please, not also ${others.join(', ')}`);
  const json = values.json === undefined ? undefined : resolve(folder, values.json);
  return { name, quick: values.quick, help: values.help, only: values.only, json };
}
