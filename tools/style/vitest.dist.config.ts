/**
 * Runs the unit tests that need no GPU on the built packages instead of their sources.
 *
 * There is no source condition here, so sibling packages resolve to `dist` as they do for a user,
 * and
 * `src/dist-tests.ts` leads each test's own relative imports to the bundle.
 */
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';
import { planDistTests } from './src/dist-tests.js';
import { workspaceFiles } from './src/files.js';

const root = join(import.meta.dirname, '../..');
const UNIT_TEST = /^packages\/[^/]+\/src\/.*(?<!\.gpu)\.test\.ts$/;

export default defineConfig(async () => {
  const plan = await planDistTests(
    root,
    workspaceFiles(root).filter((path) => UNIT_TEST.test(path)),
  );
  for (const { test, reason } of plan.skipped) console.warn(`not on dist: ${test}: ${reason}`);
  return {
    root,
    plugins: [
      {
        name: 'vramkit-dist',
        enforce: 'pre' as const,
        resolveId: (specifier: string, importer: string | undefined): string | undefined =>
          plan.redirects.get(importer ?? '')?.get(specifier),
      },
    ],
    test: {
      name: 'dist',
      include: [...plan.tests],
      pool: 'forks',
      maxWorkers: 2,
      testTimeout: 60_000,
    },
  };
});
