/** Which unit tests can run on a bundle, and where their imports then lead. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { planDistTests, relativeImports } from './dist-tests.js';

it('reads relative imports of values', () => {
  const text = [
    "import { a, b as c, type T } from './one.js';",
    "import type { U } from './two.js';",
    "import { type V } from './three.js';",
    "import * as all from './four.js';",
    "import { x } from '@vramkit/core';",
  ].join('\n');
  expect(relativeImports(text)).toEqual([
    { specifier: './one.js', names: ['a', 'b'] },
    { specifier: './four.js', names: ['*'] },
  ]);
});

it('redirects what a bundle exports and leaves out the rest with a reason', async () => {
  const root = mkdtempSync(join(tmpdir(), 'vramkit-dist-'));
  const write = (path: string, text: string): void => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };
  try {
    write('packages/p/package.json', '{"type":"module"}');
    write('packages/p/dist/index.js', 'export const a = 1;');
    write('packages/p/dist/testing.js', 'export const t = 1;');
    write('packages/p/src/a.test.ts', "import { a } from './a.js'; import { t } from './t.js';");
    write('packages/p/src/b.test.ts', "import { hidden } from './b.js';");
    const tests = ['packages/p/src/a.test.ts', 'packages/p/src/b.test.ts'];
    const plan = await planDistTests(root, tests);
    expect(plan.tests).toEqual([join(root, 'packages/p/src/a.test.ts')]);
    expect([...(plan.redirects.get(join(root, 'packages/p/src/a.test.ts')) ?? [])]).toEqual([
      ['./a.js', join(root, 'packages/p/dist/index.js')],
      ['./t.js', join(root, 'packages/p/dist/testing.js')],
    ]);
    expect(plan.skipped).toEqual([
      { test: 'packages/p/src/b.test.ts', reason: 'not exported: hidden of ./b.js' },
    ]);
    await expect(planDistTests(root, ['packages/q/src/a.test.ts'])).rejects.toThrow('not built');
  } finally {
    rmSync(root, { recursive: true });
  }
});
