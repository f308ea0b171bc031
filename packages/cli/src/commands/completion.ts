/** `vramkit completion`: the script with which a shell completes commands and options. */
import { completionScript, SHELLS } from '../completion.js';
import { UsageError, type Command } from '../command-line.js';

/** The command; `commands` are those that it completes, beside itself. */
export function completion(commands: readonly Command[]): Command {
  const command: Command = {
    name: 'completion',
    summary: 'print a script that completes commands and options in a shell',
    options: { json: { type: 'boolean', summary: 'print { shell, script } as JSON' } },
    arguments: [{ name: 'SHELL', summary: SHELLS.join(', '), choices: SHELLS }],
    examples: [['eval "$(vramkit completion bash)"', 'complete in this shell; also zsh']],
    run: (options, terminal, [name]) => {
      const shell = SHELLS.find((each) => each === name);
      if (shell === undefined) throw new UsageError(`no script for '${name}'`);
      const script = completionScript(shell, [...commands, command]);
      const json = JSON.stringify({ shell, script }, null, 2);
      terminal.out(options['json'] === true ? `${json}\n` : script);
      return Promise.resolve(0);
    },
  };
  return command;
}
