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
    // A giant blob is written at the speed of the service.
    testTimeout: process.env['VRAMKIT_GIANT_BYTES'] === undefined ? 180_000 : 1_200_000,
    hookTimeout: 120_000,
  },
});
