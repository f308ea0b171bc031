/**
 * From arguments to a command and an exit code.
 *
 * A command is a record: name, options, examples and a `run` function; help is made from the
 * record, so it cannot differ from what is parsed. Exit codes: 0 done, 1 the command failed, 2 the
 * arguments make no sense. What a command found goes to standard output, as JSON where `--json`
 * asks for it, a failure too; hints and progress go to standard error.
 *
 * `node:util` parses; a library would add only what is written here, which is help and hints.
 */
import { parseArgs } from 'node:util';
import { isVramError } from '@vramkit/core';

/** Where a command reads and writes, and what the terminal can show. */
export interface Terminal {
  /** Standard input. */
  readonly input: AsyncIterable<Uint8Array>;
  /** Writes to standard output. */
  readonly out: (text: string) => void;
  /** Writes bytes to standard output; resolves when it takes more. */
  readonly bytes: (chunk: Uint8Array) => Promise<void>;
  /** Writes to standard error. */
  readonly err: (text: string) => void;
  /** Whether standard output shows colours. */
  readonly colours: boolean;
  /** Whether standard error is a terminal, where a line can be written over. */
  readonly interactive: boolean;
  /** Characters of a line of standard error. */
  readonly columns: number;
  /** Version of this package. */
  readonly version: string;
}

/** One option of a command. */
export interface CommandOption {
  /** Whether a value follows. */
  readonly type: 'boolean' | 'string';
  /** Name of the value in help, such as NAME. */
  readonly value?: string;
  /** What it does, one line. */
  readonly summary: string;
}

/** One argument that is no option. */
export interface CommandArgument {
  /** Its name in help, such as FILE. */
  readonly name: string;
  /** What it is, one line. */
  readonly summary: string;
  /** Whether it may be left out; then all after it may. */
  readonly optional?: true;
  /** The words that it can be. Default: any text. */
  readonly choices?: readonly string[];
}

/** Values of the options that were given. */
export type OptionValues = Readonly<Record<string, string | boolean | undefined>>;

/** One command. */
export interface Command {
  readonly name: string;
  /** What it does, one line. */
  readonly summary: string;
  readonly options: Readonly<Record<string, CommandOption>>;
  /** Arguments in their order. Default: none. */
  readonly arguments?: readonly CommandArgument[];
  /** Command lines that work, each with what it shows. */
  readonly examples: readonly (readonly [line: string, what: string])[];
  /** Runs it and gives the exit code. */
  readonly run: (
    options: OptionValues,
    terminal: Terminal,
    args: readonly string[],
  ) => Promise<number>;
}

/** The option that every command has. */
export const helpOption: CommandOption = { type: 'boolean', summary: 'show this help' };

/** Rows of two columns, the first padded to the widest; nothing for no rows. */
function columns(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([first]) => first.length));
  return rows.map(([first, second]) => `  ${first.padEnd(width)}  ${second}\n`).join('');
}

function generalHelp(commands: readonly Command[], version: string): string {
  const examples = commands.flatMap((command) => command.examples);
  return (
    `vramkit ${version}\n\nUsage: vramkit COMMAND [OPTIONS]\n\n` +
    `Commands\n${columns(commands.map(({ name, summary }) => [name, summary]))}\n` +
    `Options\n${columns([
      ['--help', 'show this help, or the help of a command'],
      ['--version', 'show the version'],
    ])}\n` +
    `Examples\n${columns(examples)}`
  );
}

function commandHelp(command: Command): string {
  const rows = Object.entries({ ...command.options, help: helpOption }).map(
    ([name, { value, summary }]): [string, string] => [
      `--${name}${value === undefined ? '' : ` ${value}`}`,
      summary,
    ],
  );
  const words = command.arguments ?? [];
  const usage = words.map(({ name, optional }) => (optional ? ` [${name}]` : ` ${name}`)).join('');
  const list = columns(words.map(({ name, summary }) => [name, summary]));
  return (
    `vramkit ${command.name}: ${command.summary}\n\n` +
    `Usage: vramkit ${command.name}${usage} [OPTIONS]\n\n` +
    `${list === '' ? '' : `Arguments\n${list}\n`}Options\n${columns(rows)}\n` +
    `Examples\n${columns(command.examples)}`
  );
}

/** Edits (insert, delete, replace) that turn one word into the other. */
export function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}

/** " Did you mean ...?" where a known word is close, else nothing. */
function suggest(word: string, known: readonly string[]): string {
  const ranked = known.map((each) => ({ each, distance: editDistance(word, each) }));
  const best = ranked.sort((a, b) => a.distance - b.distance)[0];
  if (best === undefined || best.distance > Math.max(2, word.length / 3)) return '';
  return ` Did you mean '${best.each}'?`;
}

/** A mistake in the arguments; the text says which and what to do. */
export class UsageError extends Error {}

/** Options and arguments of one call. */
interface Parsed {
  readonly options: OptionValues;
  readonly args: readonly string[];
}

function checkArguments({ name, arguments: known = [] }: Command, args: readonly string[]): void {
  const extra = args[known.length];
  if (extra !== undefined) {
    const most = known.length === 0 ? 'no argument' : `at most ${known.length} arguments`;
    throw new UsageError(`'${name}' takes ${most}, got '${extra}'.`);
  }
  known.forEach(({ name: argument, optional, choices }, index) => {
    const value = args[index];
    if (value === undefined && !optional) throw new UsageError(`'${name}' needs ${argument}.`);
    if (value === undefined || choices === undefined || choices.includes(value)) return;
    const hint = suggest(value, choices) || ` It is one of ${choices.join(', ')}.`;
    throw new UsageError(`'${value}' is no ${argument}.${hint}`);
  });
}

function parseOptions(command: Command, args: readonly string[]): Parsed {
  const options = { ...command.options, help: helpOption };
  const types = Object.fromEntries(
    Object.entries(options).map(([name, { type }]) => [name, { type }]),
  );
  const known = Object.keys(options).map((name) => `--${name}`);
  const { tokens } = parseArgs({
    args: [...args],
    options: types,
    strict: false,
    tokens: true,
  });
  const values: Record<string, string | boolean> = {};
  const given: string[] = [];
  for (const token of tokens) {
    if (token.kind === 'option-terminator') continue;
    if (token.kind === 'positional') {
      given.push(token.value);
      continue;
    }
    const option = Object.hasOwn(options, token.name) ? types[token.name] : undefined;
    if (option === undefined) {
      throw new UsageError(`Unknown option '${token.rawName}'.${suggest(token.rawName, known)}`);
    }
    if (option.type === 'boolean' && token.value !== undefined) {
      throw new UsageError(`Option '${token.rawName}' takes no value, got '${token.value}'.`);
    }
    // A value that starts with dashes needs an equals sign, or a forgotten value would go unseen.
    const looksLikeOption = token.inlineValue !== true && token.value?.startsWith('--') === true;
    if (option.type === 'string' && (token.value === undefined || looksLikeOption)) {
      throw new UsageError(`Option '${token.rawName}' needs a value.`);
    }
    values[token.name] = token.value ?? true;
  }
  if (values['help'] !== true) checkArguments(command, given);
  return { options: values, args: given };
}

/** A failed command in the form that was asked for, and its exit code. */
function reportFailure(error: unknown, json: boolean, terminal: Terminal): number {
  const code = isVramError(error) ? error.code : 'unknown';
  const message = isVramError(error) ? error.message : String(error);
  if (json) {
    const failure = { ok: false, vramkit: terminal.version, error: { code, message } };
    terminal.out(`${JSON.stringify(failure, null, 2)}\n`);
  } else terminal.err(`vramkit: ${message}\n`);
  return code === 'invalid-argument' ? 2 : 1;
}

/**
 * Runs what `args` ask for.
 * @returns The exit code: 0 done, 1 failed, 2 for arguments that make no sense.
 */
export async function runCommandLine(
  args: readonly string[],
  commands: readonly Command[],
  terminal: Terminal,
): Promise<number> {
  const [first, ...rest] = args;
  const help = () => generalHelp(commands, terminal.version);
  if (first === '--help' || first === '-h' || (first === 'help' && rest.length === 0)) {
    terminal.out(help());
    return 0;
  }
  if (first === '--version' || first === '-v') {
    terminal.out(`${terminal.version}\n`);
    return 0;
  }
  if (first === undefined) {
    terminal.err(help());
    return 2;
  }
  const name = first === 'help' ? rest[0] : first;
  const command = commands.find((each) => each.name === name);
  let json = false;
  try {
    if (command === undefined) {
      const names = commands.map((each) => each.name);
      const kind = first.startsWith('-') ? 'option' : 'command';
      throw new UsageError(`Unknown ${kind} '${name}'.${suggest(name ?? '', names)}`);
    }
    const parsed = first === 'help' ? undefined : parseOptions(command, rest);
    if (parsed === undefined || parsed.options['help'] === true) {
      terminal.out(commandHelp(command));
      return 0;
    }
    json = parsed.options['json'] === true;
    return await command.run(parsed.options, terminal, parsed.args);
  } catch (error) {
    if (error instanceof UsageError) {
      const about = command === undefined ? '' : ` ${command.name}`;
      terminal.err(`vramkit: ${error.message}\nTry 'vramkit${about} --help'.\n`);
      return 2;
    }
    return reportFailure(error, json, terminal);
  }
}
