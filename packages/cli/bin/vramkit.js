#!/usr/bin/env node
// Starts the command line: from its sources in a checkout of the workspace, else from dist.
// A published package has no sources. In a checkout they come first, so that nothing needs to be
// built and a stale dist is never run, and so that a gpu module may be TypeScript as well.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';

const source = new URL('../src/main.ts', import.meta.url);
if (existsSync(source)) {
  const options = ['--conditions=@vramkit/source', '--import', import.meta.resolve('tsx')];
  const args = [...options, fileURLToPath(source), ...process.argv.slice(2)];
  const child = spawn(process.execPath, args, { stdio: 'inherit' });
  // The terminal sends these to both processes; this one waits for the other to end.
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => child.kill(signal));
  child.on('exit', (code, signal) => {
    process.exitCode = signal === null ? (code ?? 1) : 128 + constants.signals[signal];
  });
} else {
  await import('../dist/main.js');
}
