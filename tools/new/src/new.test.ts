/**
 * Skeletons made in a copy of the workspace: they compile, pass the checks, and their suites fail
 * where the author has to write and nowhere else; written out, they pass whole.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { makePart } from './make.js';

const workspace = join(import.meta.dirname, '../../..');
const COPIED = [
  'packages/eviction',
  'packages/storage',
  '.prettierrc.json',
  '.changeset',
  'eslint.config.js',
  'package.json',
  'tsconfig.base.json',
];
const SKIPPED = new Set(['node_modules', 'dist']);

let root: string;
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'vramkit-new-'));
  for (const path of COPIED) {
    const filter = (source: string): boolean => !SKIPPED.has(basename(source));
    cpSync(join(workspace, path), join(root, path), { recursive: true, filter });
  }
  symlinkSync(join(workspace, 'node_modules'), join(root, 'node_modules'), 'dir');
  writeFileSync(
    join(root, 'vitest.config.mjs'),
    `const resolve = { conditions: ['@vramkit/source'] };\n` +
      `export default { resolve, ssr: { resolve }, test: { pool: 'forks' } };\n`,
  );
  await makePart(root, 'policy', 'LongestKey');
  await makePart(root, 'store', 'my-cloud');
});
// Compilers and linters of their own, on a machine that may be busy.
vi.setConfig({ testTimeout: 300_000 });
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Runs a tool of the workspace in the copy. */
function run(tool: string, ...args: string[]): { status: number | null; output: string } {
  const entry = join(workspace, 'node_modules', tool);
  const options = { cwd: root, encoding: 'utf8', env: { ...process.env, CI: 'true' } } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [entry, ...args], options);
  return { status, output: stdout + stderr };
}

/** Titles of the tests that failed, with why, and how many passed. */
function runTests(file: string): { passed: number; failures: [title: string, why: string][] } {
  const report = join(root, 'report.json');
  const flags = ['--reporter=json', `--outputFile=${report}`, '--config', 'vitest.config.mjs'];
  run('vitest/vitest.mjs', 'run', file, ...flags);
  // The file of Vitest's own JSON reporter.
  const { testResults } = JSON.parse(readFileSync(report, 'utf8')) as {
    testResults: {
      assertionResults: { fullName: string; status: string; failureMessages: string[] }[];
    }[];
  };
  const tests = testResults.flatMap(({ assertionResults }) => assertionResults);
  const failed = tests.filter(({ status }) => status !== 'passed');
  return {
    passed: tests.length - failed.length,
    failures: failed.map(({ fullName, failureMessages: [why = ''] }) => [fullName, why]),
  };
}

function replace(path: string, part: string | RegExp, by: string): void {
  const text = readFileSync(join(root, path), 'utf8');
  const replaced = text.replace(part, by);
  expect(replaced, path).not.toBe(text);
  writeFileSync(join(root, path), replaced);
}

const sources = ['eviction/src/kv/longest-key', 'storage/src/adapters/my-cloud'].flatMap((path) => [
  `packages/${path}.ts`,
  `packages/${path}.test.ts`,
]);

describe('a skeleton as it is made', () => {
  it.each(['eviction', 'storage'])('compiles, in %s', (name) => {
    expect(run('typescript/bin/tsc', '-p', `packages/${name}`)).toEqual({ status: 0, output: '' });
  });

  it('passes the lint rules, the style rules and the formatter', () => {
    expect(run('eslint/bin/eslint.js', ...sources)).toEqual({ status: 0, output: '' });
    expect(run('prettier/bin/prettier.cjs', '--check', 'packages', '.changeset').status).toBe(0);
    const style = join(workspace, 'tools/style/src/main.ts');
    const flags = ['--import', import.meta.resolve('tsx'), style, root];
    const { stdout } = spawnSync(process.execPath, flags, { encoding: 'utf8', cwd: workspace });
    expect(stdout).toMatch(/^0 style violations in \d+ files\n$/);
  });

  it('is exported, known by name, listed in the README, and has a release note', () => {
    const text = (path: string): string => readFileSync(join(root, path), 'utf8');
    expect(text('packages/eviction/src/index.ts')).toContain("'./kv/longest-key.js'");
    expect(text('packages/eviction/src/registry.ts')).toMatch(/\n {2}longestKey,\n\};/);
    expect(text('packages/eviction/README.md')).toMatch(/lagKv.*\n\| `longestKey` /);
    expect(text('packages/storage/README.md')).toMatch(/cockroachStore.*\n\| `myCloudStore` /);
    expect(text('.changeset/store-my-cloud.md')).toContain('myCloudStore');
    expect(runTests('packages/eviction/src/registry.test.ts').failures).toEqual([]);
  });
});

describe('the test of a skeleton', () => {
  it('of a policy fails where the formula is to be written, and passes with it', () => {
    const test = 'packages/eviction/src/kv/longest-key.test.ts';
    const { passed, failures } = runTests(test);
    expect(passed).toBeGreaterThanOrEqual(10);
    expect(failures.length).toBeGreaterThan(0);
    for (const [, why] of failures) expect(why).toContain('write the formula of longestKey here');

    const source = 'packages/eviction/src/kv/longest-key.ts';
    replace(source, 'needs: []', "needs: ['keyNorm']");
    replace(source, /const width[\s\S]*?\n {4}\}\);/, "out.set(statistic(tokens, 'keyNorm'));");
    replace(
      source,
      '\n\nconst score',
      "\nimport { statistic } from '../tokens.js';\n\nconst score",
    );
    replace(test, /throw new Error.*/, 'return head.keys.map(length);');
    replace(test, 'import { referenceScores', 'import { length, referenceScores');
    expect(runTests(test).failures).toEqual([]);
  });

  it('of a store fails where the service is to be opened, and passes with a real map', () => {
    const test = 'packages/storage/src/adapters/my-cloud.test.ts';
    const { passed, failures } = runTests(test);
    expect(passed).toBe(0);
    expect(failures.length).toBeGreaterThan(10);
    for (const [, why] of failures) expect(why).toContain('connect to my-cloud here');

    replace(test, /throw new Error.*/, 'return mapClient();');
    replace(
      test,
      'import { describeStore',
      `import { readBlob } from '../read-blob.js';
import { memoryStore } from './memory.js';
import { describeStore`,
    );
    writeFileSync(join(root, test), `${readFileSync(join(root, test), 'utf8')}\n${MEMORY_CLIENT}`);
    const written = runTests(test);
    expect(written.failures).toEqual([]);
    expect(written.passed).toBe(failures.length);
  });
});

/** A client whose service is the memory store, which keeps the contract itself. */
const MEMORY_CLIENT = `
function mapClient(): MyCloudClient {
  const blobs = memoryStore();
  return {
    write: async (key, bytes, condition) => {
      try {
        return (await blobs.put(key, bytes, { condition })).version;
      } catch {
        return undefined;
      }
    },
    read: async ({ key, version }, begin, end) => {
      const range = { offsetBytes: begin, lengthBytes: end - begin, version };
      return new Uint8Array(await readBlob(blobs, key, range));
    },
    stat: (key) => blobs.head(key),
    scan: (prefix, startAfter) => blobs.list(prefix, { startAfter }),
    remove: (key) => blobs.delete(key),
  };
}
`;

describe('a name', () => {
  it.each(['', '1st', 'a b', '../x', 'a--b', 'straße'])('%j is refused', async (name) => {
    await expect(makePart(root, 'policy', name)).rejects.toThrow(TypeError);
  });

  it('that is taken is refused, and nothing is written', async () => {
    const before = readFileSync(join(root, 'packages/eviction/src/index.ts'), 'utf8');
    await expect(makePart(root, 'policy', 'key-diff')).rejects.toThrow(/exists already/);
    expect(readFileSync(join(root, 'packages/eviction/src/index.ts'), 'utf8')).toBe(before);
  });
});
