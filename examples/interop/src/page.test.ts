/** A plain page in headless Chromium imports the built packages and runs them on its own device. */
import { mkdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { workspaceFolder } from '@vramkit/bench';
import { expect, it } from 'vitest';
import { whyNoPackages, withPage } from './browser.js';
import { whyNoRuntimes } from './runtimes.js';

const reason = whyNoRuntimes() ?? whyNoPackages();
if (reason !== undefined) process.stderr.write(`interop in a page skipped: ${reason}\n`);

interface Outcome {
  readonly rows: readonly { readonly part: string; readonly passed: boolean }[];
}

it.skipIf(reason !== undefined)('runs allocator, paged attention and packed matmul', async () => {
  const folder = join(workspaceFolder, 'reports');
  mkdirSync(folder, { recursive: true });
  const path = join(folder, 'interop-page.png');
  const outcome = await withPage('/', async (page) => {
    await page.setViewport({ width: 800, height: 420 });
    await page.waitForFunction('window.outcome', { timeout: 50_000 });
    await page.screenshot({ path });
    return (await page.evaluate('window.outcome')) as Outcome; // what page.js says it is
  });
  expect(outcome.rows.map(({ part }) => part)).toEqual([
    'block allocator',
    'paged attention',
    'packed matmul',
  ]);
  expect(outcome.rows.filter(({ passed }) => !passed)).toEqual([]);
  expect(statSync(path).size).toBeGreaterThan(5000);
});
