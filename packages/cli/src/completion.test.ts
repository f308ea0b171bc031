/** Completion in the shells themselves, where they are installed. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const binary = fileURLToPath(new URL('../bin/vramkit.js', import.meta.url));

function vramkit(...args: string[]) {
  return spawnSync(process.execPath, [binary, ...args], { encoding: 'utf8' });
}

function has(shell: string): boolean {
  const isThere = spawnSync(shell, ['-c', 'exit 0']).status === 0;
  if (!isThere) process.stderr.write(`completion in ${shell} skipped: it is not installed\n`);
  return isThere;
}

/** What bash offers for the last of `words`. */
function bashOffers(words: string[]): string[] {
  const script = `${vramkit('completion', 'bash').stdout}
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vramkit; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout } = spawnSync('bash', ['-c', script, 'bash', ...words], { encoding: 'utf8' });
  return stdout.split('\n').filter((line) => line !== '');
}

describe.skipIf(!has('bash'))('in bash', () => {
  it.each([
    [
      ['vramkit', 'p'],
      ['pack', 'plan'],
    ],
    [['vramkit', 'doctor', '--a'], ['--adapter']],
    [
      ['vramkit', 'store', ''],
      ['ls', 'get', 'put', 'head', 'rm', 'cp'],
    ],
    [['vramkit', 'store', 'ls', ''], []],
    [
      ['vramkit', 'completion', ''],
      ['bash', 'zsh', 'fish'],
    ],
    [['vramkit', 'help', 'tr'], ['trace']],
    [['vramkit', 'pack', '--t'], ['--target-bits']],
    [
      ['vramkit', 'nothing', '--'],
      ['--help', '--version'],
    ],
  ])('%j offers %j', (words, offers) => {
    expect(bashOffers(words)).toEqual(offers);
  });
});

// A shell that is not installed cannot be asked; its script is still made, below.
describe.skipIf(!has('zsh'))('in zsh', () => {
  it('is a script that zsh reads, and defines the function', () => {
    const { stdout } = vramkit('completion', 'zsh');
    const source = `autoload -U compinit; compinit -u -D; ${stdout}\nwhence -w _vramkit`;
    const result = spawnSync('zsh', ['-f', '-c', source], { encoding: 'utf8' });
    expect(result).toMatchObject({ status: 0, stdout: '_vramkit: function\n', stderr: '' });
  });
});

describe.skipIf(!has('fish'))('in fish', () => {
  it.each([
    ['vramkit p', ['pack', 'plan']],
    ['vramkit store ', ['cp', 'get', 'head', 'ls', 'put', 'rm']],
    ['vramkit doctor --ad', ['--adapter']],
  ])('%j offers %j', (line, offers) => {
    const { stdout } = vramkit('completion', 'fish');
    const source = `${stdout}\ncomplete -C '${line}'`;
    const result = spawnSync('fish', ['--no-config', '-c', source], { encoding: 'utf8' });
    const words = result.stdout.split('\n').map((each) => each.split('\t')[0] ?? '');
    const isFile = (word: string): boolean => word.includes('.') || word.endsWith('/');
    const found = words.filter((word) => word !== '' && !isFile(word));
    expect(found).toEqual(expect.arrayContaining(offers));
  });
});

it('knows every option of every command, in each shell', () => {
  const commands = ['doctor', 'pack', 'inspect', 'plan', 'trace', 'store', 'completion'];
  for (const shell of ['bash', 'zsh', 'fish']) {
    const { status, stdout } = vramkit('completion', shell);
    expect(status).toBe(0);
    for (const name of commands) {
      const help = vramkit(name, '--help').stdout;
      for (const [, option = ''] of help.matchAll(/^ {2}--([\w-]+)/gm)) {
        expect(stdout, `${shell} ${name}`).toContain(option);
      }
    }
  }
});

it('refuses a shell that it has no script for', () => {
  const { status, stderr } = vramkit('completion', 'tcsh');
  expect(status).toBe(2);
  expect(stderr).toContain("'tcsh' is no SHELL.");
});
