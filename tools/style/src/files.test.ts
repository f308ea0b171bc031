/** The walk sees what people wrote and skips what programs made. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { workspaceFiles } from './files.js';

it('lists written files in order and skips generated folders', () => {
  const root = mkdtempSync(join(tmpdir(), 'vramkit-style-'));
  try {
    for (const path of ['b.ts', 'a/x.ts', 'a/dist/x.js', 'node_modules/y/index.js', '.ci/run']) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), '');
    }
    expect(workspaceFiles(root)).toEqual(['.ci/run', 'a/x.ts', 'b.ts']);
  } finally {
    rmSync(root, { recursive: true });
  }
});
