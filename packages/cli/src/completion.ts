/**
 * Completion scripts of shells, made from the commands' own records, so that they complete what is
 * parsed and nothing else. A script holds plain lists: pressing TAB starts no Node.
 */
import { helpOption, type Command, type CommandOption } from './command-line.js';

/** The shells that have a script. */
export const SHELLS = ['bash', 'zsh', 'fish'] as const;

/** One of {@link SHELLS}. */
export type Shell = (typeof SHELLS)[number];

/** The script that a shell evaluates. */
export function completionScript(shell: Shell, commands: readonly Command[]): string {
  const make = { bash: bashScript, zsh: zshScript, fish: fishScript };
  return make[shell](commands);
}

function optionsOf({ options }: Command): [string, CommandOption][] {
  return Object.entries({ ...options, help: helpOption });
}

/** Words of the first argument, where it is one of a list. */
function choicesOf({ arguments: [first] = [] }: Command): readonly string[] {
  return first?.choices ?? [];
}

/** Text between single quotes of a shell. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function bashScript(commands: readonly Command[]): string {
  const names = commands.map(({ name }) => name).join(' ');
  const cases = commands.map((command) => {
    const flags = optionsOf(command).map(([name]) => `--${name}`);
    const choices = choicesOf(command).join(' ');
    return `    ${command.name}) flags=${quoted(flags.join(' '))} choices=${quoted(choices)} ;;\n`;
  });
  return `# bash: eval "$(vramkit completion bash)", as a line of ~/.bashrc
_vramkit() {
  local word=\${COMP_WORDS[COMP_CWORD]} flags='--help --version' choices=''
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${names} help $flags" -- "$word"))
    return
  fi
  case \${COMP_WORDS[1]} in
    help) choices=${quoted(names)} flags='' ;;
${cases.join('')}  esac
  if [ "\${word:0:1}" = - ]; then
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  elif [ "$COMP_CWORD" -eq 2 ] && [ -n "$choices" ]; then
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
  else
    COMPREPLY=()
  fi
}
complete -o bashdefault -o default -F _vramkit vramkit
`;
}

function zshScript(commands: readonly Command[]): string {
  const escaped = (text: string): string => text.replace(/[\\[\]:]/g, '\\$&');
  const names = commands.map(({ name, summary }) => quoted(`${name}:${escaped(summary)}`));
  const cases = commands.map((command) => {
    const flags = optionsOf(command).map(([name, { type, value = 'VALUE', summary }]) => {
      const file = /^(PATH|FILE|URL|FOLDER)$/.test(value) ? '_files' : ' ';
      const takes = type === 'string' ? `:${value}:${file}` : '';
      return quoted(`--${name}[${escaped(summary)}]${takes}`);
    });
    const choices = choicesOf(command);
    const words = choices.length === 0 ? [] : [quoted(`1:what:(${choices.join(' ')})`)];
    const rest = (command.arguments ?? []).length > words.length ? [quoted('*:file:_files')] : [];
    return `    ${command.name}) _arguments ${[...flags, ...words, ...rest].join(' ')} ;;\n`;
  });
  return `#compdef vramkit
# zsh: eval "$(vramkit completion zsh)" after compinit, as a line of ~/.zshrc
_vramkit() {
  local -a commands=(${names.join(' ')})
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  shift words
  (( CURRENT-- ))
  case $words[1] in
${cases.join('')}  esac
}
compdef _vramkit vramkit
`;
}

function fishScript(commands: readonly Command[]): string {
  const lines = commands.flatMap((command) => {
    const { name, summary } = command;
    const inside = `complete -c vramkit -n ${quoted(`__fish_seen_subcommand_from ${name}`)}`;
    const choices = choicesOf(command).join(' ');
    return [
      `complete -c vramkit -f -n __fish_use_subcommand -a ${name} -d ${quoted(fishText(summary))}`,
      ...optionsOf(command).map(([option, { type, summary: what }]) => {
        const takes = type === 'string' ? ' -r' : '';
        return `${inside} -l ${option}${takes} -d ${quoted(fishText(what))}`;
      }),
      ...(choices === '' ? [] : [`${inside} -a ${quoted(choices)}`]),
    ];
  });
  return `# fish: vramkit completion fish | source, in config.fish\n${lines.join('\n')}\n`;
}

/** fish reads a backslash within single quotes. */
function fishText(text: string): string {
  return text.replaceAll('\\', '\\\\');
}
