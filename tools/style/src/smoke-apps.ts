/**
 * What a user makes of the installed archives: a project of ES modules, one of CommonJS, both with
 * threads, a Vite app that runs in a headless Chromium, and bundles that import one function.
 *
 * The bundles show that `sideEffects: false` is true: what is not imported is not in them. Their
 * ceilings are in bytes, minified; whole packages are 25 to 220 KB. That of storage is for Node:
 * its main entry imports Node's own modules, which a bundle for pages refuses.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Browser } from './browser.js';

const vite = join(import.meta.dirname, '../../../node_modules/vite/bin/vite.js');

/** A program without a GPU, for pages too: it shares a prefix and asks a policy. */
const PROGRAM = `
const sequences = new KvSequences(new BlockPool({ blockCount: 64, blockSize: 16 }));
const prompt = sequences.create();
sequences.append(prompt, 100);
const { copies } = sequences.fork(prompt);
const { protect } = kvPolicy('pagedEviction', { budgetTokens: 64, blockSize: 16 });
show([copies.length, sequences.pool.freeCount, protect.firstTokens].join(' '));
`;
const EXPECTED = '1 55 16';
const NAMES: Readonly<Record<string, string>> = {
  '@vramkit/block-allocator': 'BlockPool, KvSequences',
  '@vramkit/eviction': 'kvPolicy',
};
const imports = Object.entries(NAMES).map(([name, what]) => `import { ${what} } from '${name}';\n`);
const requires = Object.entries(NAMES).map(
  ([name, what]) => `const { ${what} } = require('${name}');\n`,
);

/** A program for Node that packs on two threads, which have no file of their own to start from. */
const THREADS = `
const threads = new PackThreads({ workers: 2 });
const how = { name: 'w', rows: 8, columns: 32, bits: 4, quantizer: optRtn() };
const values = Float32Array.from({ length: 256 }, (_, i) => Math.sin(i));
threads.quantize(values, how).then(({ codes }) => {
  show(codes.join() === quantizeMatrix(values, how).codes.join() ? '${EXPECTED}' : 'other codes');
  return threads.dispose();
});
`;
const THREAD_NAMES = 'optRtn, PackThreads, quantizeMatrix';

/** One function of a package, and how large a bundle of it may be. */
const SHAKEN: readonly (readonly [name: string, what: string, mostBytes: number])[] = [
  ['@vramkit/core', 'isVramError', 300],
  ['@vramkit/block-allocator', 'writeSlots', 1_000],
  ['@vramkit/eviction', 'lru', 5_000],
  ['@vramkit/offload', 'gpuOnly', 6_000],
  ['@vramkit/packer', 'rtn', 4_000],
  ['@vramkit/paged-attention', 'bytesPerBlock', 1_000],
  ['@vramkit/storage', 'compareKeys', 1_500],
  ['@vramkit/trace', 'peakBytes', 500],
];

function project(folder: string, name: string, files: Readonly<Record<string, string>>): string {
  const path = join(folder, name);
  mkdirSync(path, { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(join(path, file), text);
  return path;
}

function node(cwd: string, ...args: string[]): string {
  return execFileSync(process.execPath, args, { cwd, encoding: 'utf8' }).trim();
}

function same(what: string, actual: unknown): void {
  if (actual !== EXPECTED) throw new Error(`${what} gives '${String(actual)}', not '${EXPECTED}'`);
  console.log(`${what} runs`);
}

async function viteApp(folder: string): Promise<void> {
  const show = 'const show = (text) => (document.body.dataset.result = text);\n';
  const app = project(folder, 'app', {
    'package.json': '{ "private": true, "type": "module" }',
    'index.html':
      '<!doctype html><html><head><link rel="icon" href="data:,"></head>' +
      '<body><script type="module" src="./main.js"></script></body></html>',
    'main.js': `${imports.join('')}${show}${PROGRAM}`,
  });
  node(app, vite, 'build', '--base', './', '--logLevel', 'error');
  using browser = await Browser.open();
  const expression = 'document.body.dataset.result';
  const page = await browser.visit(pathToFileURL(join(app, 'dist/index.html')).href, {
    expression,
  });
  if (page.errors.length > 0) throw new Error(`the Vite app complains: ${page.errors.join('; ')}`);
  same('a Vite app in Chromium', page.value);
}

function bundleBytes(folder: string, index: number, name: string, what: string): number {
  const path = project(folder, `shaken-${index}`, {
    'package.json': '{ "private": true, "type": "module" }',
    'entry.js': `import { ${what} } from '${name}';\nglobalThis.used = ${what};\n`,
    'vite.config.js': `export default { logLevel: 'error', ssr: { noExternal: true }, build: {
      minify: 'esbuild', modulePreload: false, ssr: ${name === '@vramkit/storage'},
      rollupOptions: { input: 'entry.js', external: ['webgpu'], output: { dir: 'out' } } } };`,
  });
  node(path, vite, 'build');
  const out = join(path, 'out');
  const files = readdirSync(out, { recursive: true, encoding: 'utf8' });
  return files
    .filter((file) => file.endsWith('.js'))
    .reduce((sum, file) => sum + readFileSync(join(out, file)).length, 0);
}

/**
 * Runs all of it in `folder`, where the archives are installed.
 * @throws Error naming the project that does not work, or the bundle that is too large.
 */
export async function smokeApps(folder: string): Promise<void> {
  const show = 'const show = console.log;\n';
  const esm = project(folder, 'esm', {
    'package.json': '{ "private": true, "type": "module" }',
    'main.js': `${imports.join('')}${show}${PROGRAM}`,
    'threads.js': `import { ${THREAD_NAMES} } from '@vramkit/packer';\n${show}${THREADS}`,
  });
  same('a project of ES modules', node(esm, 'main.js'));
  same('packing on threads from an ES module', node(esm, 'threads.js'));
  const cjs = project(folder, 'cjs', {
    'package.json': '{ "private": true }',
    'main.js': `${requires.join('')}${show}${PROGRAM}`,
    'threads.js': `const { ${THREAD_NAMES} } = require('@vramkit/packer');\n${show}${THREADS}`,
  });
  same('a project of CommonJS', node(cjs, 'main.js'));
  same('packing on threads from CommonJS', node(cjs, 'threads.js'));
  await viteApp(folder);
  SHAKEN.forEach(([name, what, mostBytes], index) => {
    const bytes = bundleBytes(folder, index, name, what);
    console.log(`a bundle of ${what} of ${name}: ${bytes} B, at most ${mostBytes}`);
    if (bytes > mostBytes) throw new Error(`a bundle of ${what} of ${name} has ${bytes} B`);
  });
}
