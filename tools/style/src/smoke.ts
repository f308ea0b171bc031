/**
 * Packs every published package as npm would, installs the archives in an empty folder without a
 * network, and uses them from there: ES modules, CommonJS, type declarations, command line, a Vite
 * app and small bundles (smoke-apps.ts).
 *
 * What only this finds: a file missing from the archive, an undeclared dependency, a declaration
 * that needs types nobody installs. Third-party dependencies are packed from `node_modules`, so
 * that nothing is downloaded.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { smokeApps } from './smoke-apps.js';

interface Manifest {
  readonly name: string;
  readonly bin?: Readonly<Record<string, string>>;
  readonly exports?: Readonly<Record<string, unknown>>;
  readonly dependencies?: Readonly<Record<string, string>>;
}

const root = join(import.meta.dirname, '../../..');
const folder = mkdtempSync(join(tmpdir(), 'vramkit-smoke-'));
const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm';

function run(command: string, args: readonly string[], cwd = folder): string {
  return execFileSync(command, args, {
    cwd,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

function readManifest(path: string): Manifest {
  // JSON.parse is a foreign boundary: npm owns this format.
  return JSON.parse(readFileSync(join(path, 'package.json'), 'utf8')) as Manifest;
}

/** Folders of everything to pack: our packages, and what they need from others, transitively. */
function foldersToPack(): Map<string, string> {
  const folders = new Map<string, string>();
  const add = (path: string): void => {
    const manifest = readManifest(path);
    if (folders.has(manifest.name)) return;
    folders.set(manifest.name, path);
    for (const name of Object.keys(manifest.dependencies ?? {})) {
      add(join(root, 'node_modules', name));
    }
  };
  for (const name of readdirSync(join(root, 'packages'))) add(join(root, 'packages', name));
  return folders;
}

function install(folders: ReadonlyMap<string, string>): void {
  mkdirSync(join(folder, 'archives'));
  const pack = [
    'pack',
    '--json',
    '--ignore-scripts',
    '--pack-destination',
    join(folder, 'archives'),
  ];
  const dependencies: Record<string, string> = {};
  for (const [name, path] of folders) {
    // npm's own format, one entry for the one folder.
    const [packed] = JSON.parse(run(npm, [...pack, path])) as [{ filename: string }];
    dependencies[name] = `file:archives/${packed.filename}`;
  }
  const manifest = {
    name: 'smoke',
    private: true,
    type: 'module',
    dependencies,
    overrides: dependencies,
  };
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest, null, 2));
  run(npm, [
    'install',
    '--offline',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
  ]);
}

/** Imports and requires every declared entry, and compares the names they give. */
function load(manifest: Manifest): void {
  for (const entry of Object.keys(manifest.exports ?? {})) {
    if (entry === './package.json') continue;
    const specifier = manifest.name + entry.slice(1);
    const esm = `console.log(Object.keys(await import('${specifier}')).sort().join())`;
    const cjs = `console.log(Object.keys(require('${specifier}')).sort().join())`;
    const imported = run(process.execPath, ['--input-type=module', '-e', esm]).trim();
    const required = run(process.execPath, ['--input-type=commonjs', '-e', cjs]).trim();
    if (imported === '' || imported !== required) {
      throw new Error(`${specifier}: import gives [${imported}], require gives [${required}]`);
    }
    console.log(`${specifier}: ${imported.split(',').length} names by import and require`);
  }
}

/** What a page or a queue takes without a cast: memory of its own, not what threads may share. */
const OWN_MEMORY = `
import { f16ArrayToF32, type Tensor } from '@vramkit/core';
import { dequantize, memorySink } from '@vramkit/packer';
import type { PagedKvCache } from '@vramkit/paged-attention';
import type { CheckpointManifest, Checkpoints } from '@vramkit/storage';
import { memoryVizPickle } from '@vramkit/trace';
export async function use(
  queue: GPUQueue,
  to: GPUBuffer,
  from: { tensor: Tensor; cache: PagedKvCache; checkpoints: Checkpoints; step: CheckpointManifest },
): Promise<Blob> {
  queue.writeBuffer(to, 0, await from.tensor.read());
  queue.writeBuffer(to, 0, await from.tensor.readFloats());
  queue.writeBuffer(to, 0, await from.tensor.device.readback.read(from.tensor));
  queue.writeBuffer(to, 0, await from.checkpoints.read(from.step, 'w'));
  queue.writeBuffer(to, 0, f16ArrayToF32(new Uint16Array(2)));
  queue.writeBuffer(to, 0, dequantize('Q8_0', new Uint8Array(34)));
  for (const [, bytes] of await from.cache.readBlocks([0])) queue.writeBuffer(to, 0, bytes);
  return new Blob([memoryVizPickle([]), memorySink('x').bytes()]);
}
`;

/** Compiles one importing file per module kind with the library declarations checked. */
function checkTypes(manifests: readonly Manifest[]): void {
  const lines = manifests.flatMap(({ name, exports }) =>
    Object.keys(exports ?? {})
      .filter((entry) => entry !== './package.json')
      .map(
        (entry, index) => `import * as m${index} from '${name}${entry.slice(1)}'; void m${index};`,
      ),
  );
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  const flags = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022'];
  const lib = ['--lib', 'es2023,esnext.disposable,dom', '--types', 'node'];
  lines.forEach((line, index) => {
    writeFileSync(join(folder, `use-${index}.mts`), line);
    writeFileSync(join(folder, `use-${index}.cts`), line);
  });
  writeFileSync(join(folder, 'own-memory.mts'), OWN_MEMORY);
  const files = lines.flatMap((_, index) => [`use-${index}.mts`, `use-${index}.cts`]);
  const typeRoots = ['--typeRoots', join(root, 'node_modules/@types')];
  run(process.execPath, [compiler, ...flags, ...lib, ...typeRoots, ...files, 'own-memory.mts']);
  console.log(`declarations of ${lines.length} entries compile from .mts and .cts`);
}

try {
  const folders = foldersToPack();
  install(folders);
  const manifests = [...folders.values()]
    .filter((path) => path.startsWith(join(root, 'packages')))
    .map(readManifest);
  manifests.filter(({ bin }) => bin === undefined).forEach(load);
  checkTypes(manifests.filter(({ bin }) => bin === undefined));
  for (const name of manifests.flatMap(({ bin }) => Object.keys(bin ?? {}))) {
    run(join(folder, 'node_modules/.bin', name), ['--help']);
    console.log(`${name} --help answers`);
  }
  await smokeApps(folder);
} finally {
  rmSync(folder, { recursive: true });
}
