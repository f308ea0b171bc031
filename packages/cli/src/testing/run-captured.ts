/** The command line in this process, with what it prints. */
import { Readable } from 'node:stream';
import { runCommandLine } from '../command-line.js';

/** Runs commands over an empty input, without colours; gives exit code and texts. */
export async function runCaptured(
  args: readonly string[],
  commands: Parameters<typeof runCommandLine>[1],
): Promise<{ status: number; out: string; err: string }> {
  const texts = { out: '', err: '' };
  const terminal = {
    input: Readable.from([]),
    bytes: () => Promise.resolve(),
    columns: 80,
    out: (text: string) => void (texts.out += text),
    err: (text: string) => void (texts.err += text),
    colours: false,
    interactive: false,
    version: '1.2.3',
  };
  const status = await runCommandLine(args, commands, terminal);
  return { status, ...texts };
}
