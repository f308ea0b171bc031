/** One bundler configuration for every published package: entry, format, declarations and target. */
import { existsSync } from 'node:fs';
import { defineConfig } from 'tsup';

export default defineConfig({
  entry: ['src/index.ts', 'src/testing.ts', 'src/main.ts'].filter((file) => existsSync(file)),
  format: ['esm', 'cjs'],
  dts: true,
  clean: true,
  target: 'node20',
});
