/**
 * One bundler configuration for every published package: entry, format, declarations and target.
 */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { defineConfig } from 'tsup';

// Declarations that speak of GPUDevice must name where its type comes from: a user's compiler knows
// nothing of this workspace's settings. Packages above core find it through core's declarations.
const text = readFileSync('package.json', 'utf8');
const usesGpuTypes = text.includes('"@webgpu/types"');
// JSON.parse is a foreign boundary: npm owns this format, and the conditions are ours.
const manifest = JSON.parse(text) as {
  readonly exports?: Readonly<Record<string, string | { readonly '@vramkit/source': string }>>;
};

/** The manifest's exports, each built from the source that it names; a command has one entry. */
function entries(): Record<string, string> {
  const exported = Object.values(manifest.exports ?? {}).flatMap((entry) =>
    typeof entry === 'string' ? [] : [entry['@vramkit/source']],
  );
  const sources = exported.length > 0 ? exported : ['./src/main.ts'];
  return Object.fromEntries(sources.map((source) => [basename(source, '.ts'), source]));
}

export default defineConfig({
  entry: entries(),
  format: ['esm', 'cjs'],
  dts: usesGpuTypes ? { banner: '/// <reference types="@webgpu/types" />' } : true,
  clean: true,
  target: 'node20',
});
