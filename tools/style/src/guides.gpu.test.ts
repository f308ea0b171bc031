/**
 * Each example of a README and of the guides runs, and prints what the text block below it says,
 * where there is one.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import { findExamples } from './examples.js';
import { workspaceFiles } from './files.js';

const root = join(import.meta.dirname, '../../..');
// Inside the workspace, so that imports resolve; where no check of the workspace looks.
const scratch = join(root, 'node_modules/.cache/vramkit');
const preload = pathToFileURL(join(import.meta.dirname, 'lend-gpu.ts')).href;
const flags = ['--conditions=@vramkit/source', '--import', 'tsx', '--import', preload];

/** Runs a module and gives what it prints. */
function run(code: string, more: readonly string[] = []): string {
  mkdirSync(scratch, { recursive: true });
  const folder = mkdtempSync(join(scratch, 'example-'));
  try {
    const file = join(folder, 'example.mts');
    writeFileSync(file, code);
    // The task runner may ask for colours, which are no part of what an example prints.
    const env = { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' };
    const args = [...flags, ...more, file];
    return execFileSync(process.execPath, args, { encoding: 'utf8', cwd: folder, env });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const withExamples = /^(docs\/guides\/.*\.md|(packages\/[^/]+\/)?README\.md)$/;
for (const path of workspaceFiles(root).filter((each) => withExamples.test(each))) {
  const examples = findExamples(path, readFileSync(join(root, path), 'utf8'));
  // Some guides are tables and prose alone.
  if (examples.length === 0) continue;
  describe(path, () => {
    it.each(examples)('line $line', ({ code, output }) => {
      const printed = run(code);
      if (output !== '') expect(printed).toBe(output);
    });
  });
}

it('a device that is disposed at once, and collected, does not take the process with it', () => {
  const code = `
    import { openDevice } from '@vramkit/core';
    const once = async () => (await openDevice({ budgetBytes: 2 ** 20 })).dispose();
    for (let i = 0; i < 3; i += 1) {
      await once();
      globalThis.gc();
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    console.log('ended');`;
  expect(run(code, ['--expose-gc'])).toBe('ended\n');
});
