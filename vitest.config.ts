import { defineConfig } from 'vitest/config';
import { usableAdapters } from './tools/adapter/src/index.js';

// One project without a GPU, and one per adapter that this machine offers: every `*.gpu.test.ts` runs on each.
const shared = {
  resolve: { conditions: ['@vramkit/source'] },
  ssr: { resolve: { conditions: ['@vramkit/source'] } },
};
const exclude = ['**/node_modules/**', '**/dist/**'];

export default defineConfig({
  ...shared,
  test: {
    pool: 'forks',
    maxWorkers: 2,
    passWithNoTests: true,
    projects: [
      {
        ...shared,
        test: { name: 'cpu', include: ['**/*.test.ts'], exclude: [...exclude, '**/*.gpu.test.ts'], testTimeout: 60_000 },
      },
      ...usableAdapters().map((adapter) => ({
        ...shared,
        test: {
          name: adapter,
          include: ['**/*.gpu.test.ts'],
          exclude,
          env: { VRAMKIT_ADAPTER: adapter },
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      })),
    ],
  },
});
