/**
 * One project without a GPU, and one per adapter that this machine offers: every `*.gpu.test.ts`
 * runs on each. `VRAMKIT_ADAPTER` narrows to one adapter;
 * `VRAMKIT_REQUIRE_ADAPTER=swiftshader,lavapipe` makes a missing one an error.
 */
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { defineConfig } from 'vitest/config';
import { surveyAdapters } from './tools/adapter/src/survey.js';
import { chooseTestAdapters } from './tools/adapter/src/test-adapters.js';

const { adapters, message } = chooseTestAdapters(surveyAdapters(), process.env);
console.warn(message);

// Vitest does not hand its --dir option to projects, so each gets it here.
const { dir } = parseArgs({ options: { dir: { type: 'string' } }, strict: false }).values;
const inFolder = typeof dir === 'string' ? { dir: resolve(import.meta.dirname, dir) } : {};

const shared = {
  resolve: { conditions: ['@vramkit/source'] },
  ssr: { resolve: { conditions: ['@vramkit/source'] } },
};
const exclude = ['**/node_modules/**', '**/dist/**'];

export default defineConfig({
  ...shared,
  test: {
    // Forks, because the Vulkan loader reads the real environment, which process.env is not in a
    // worker thread.
    pool: 'forks',
    maxWorkers: 2,
    passWithNoTests: true,
    projects: [
      {
        ...shared,
        test: {
          ...inFolder,
          name: 'cpu',
          include: ['**/*.test.ts'],
          exclude: [...exclude, '**/*.gpu.test.ts'],
          testTimeout: 60_000,
        },
      },
      ...adapters.map((adapter) => ({
        ...shared,
        test: {
          ...inFolder,
          name: adapter,
          include: ['**/*.gpu.test.ts'],
          exclude,
          env: { VRAMKIT_ADAPTER: adapter },
          testTimeout: 600_000,
          hookTimeout: 180_000,
        },
      })),
    ],
  },
});
