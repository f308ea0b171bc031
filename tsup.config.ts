/**
 * One bundler configuration for every published package: entry, format, declarations and target.
 */
import { existsSync, readFileSync } from 'node:fs';
import { defineConfig } from 'tsup';

// Declarations that speak of GPUDevice must name where its type comes from: a user's compiler knows
// nothing of this workspace's settings. Packages above core find it through core's declarations.
const usesGpuTypes = readFileSync('package.json', 'utf8').includes('"@webgpu/types"');

export default defineConfig({
  entry: ['src/index.ts', 'src/testing.ts', 'src/main.ts'].filter((file) => existsSync(file)),
  format: ['esm', 'cjs'],
  dts: usesGpuTypes ? { banner: '/// <reference types="@webgpu/types" />' } : true,
  clean: true,
  target: 'node20',
});
