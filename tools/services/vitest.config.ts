/** The suites against real services; `src/main.ts` starts these and runs the suites. */
import { defineConfig } from 'vitest/config';

const conditions = ['@vramkit/source'];

export default defineConfig({
  resolve: { conditions },
  ssr: { resolve: { conditions } },
  test: {
    include: ['src/suites/**/*.ts'],
    pool: 'forks',
    // One service at a time: they share the machine's cores with each other and with the tests.
    maxWorkers: 1,
    passWithNoTests: true,
    testTimeout: 180_000,
    hookTimeout: 120_000,
  },
});
