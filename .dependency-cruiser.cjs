// The import rules of ARCHITECTURE.md, "Parts". A rule here is the only place where a boundary is enforced:
// project references order a build, they do not stop a wrong import between workspace packages.

/** Which sibling packages each package's sources may import, by folder name. */
const MAY_IMPORT = {
  core: [],
  'block-allocator': ['core'],
  'paged-attention': ['core', 'block-allocator'],
  eviction: ['core'],
  packer: ['core'],
  offload: ['core', 'storage'],
  storage: ['core'],
  trace: ['core'],
  cli: [
    'core',
    'block-allocator',
    'paged-attention',
    'eviction',
    'packer',
    'offload',
    'storage',
    'trace',
  ],
};

const TESTS = '\\.test\\.ts$';
const TEST_CODE = [TESTS, '/testing\\.ts$', '/testing/', '^tools/services/src/'];

const layers = Object.entries(MAY_IMPORT).map(([name, allowed]) => ({
  name: `layer-${name}`,
  comment: `packages/${name} imports ${allowed.join(', ') || 'no sibling'} and nothing else of ours.`,
  severity: 'error',
  from: { path: `^packages/${name}/`, pathNot: TESTS },
  to: {
    path: '^(packages|examples|tools)/',
    pathNot: [name, ...allowed].map((allowedName) => `^packages/${allowedName}/`),
  },
}));

module.exports = {
  forbidden: [
    ...layers,
    {
      name: 'no-unknown-package',
      comment: 'A new package gets a line in MAY_IMPORT, and one in ARCHITECTURE.md.',
      severity: 'error',
      from: { path: '^packages/', pathNot: `^packages/(${Object.keys(MAY_IMPORT).join('|')})/` },
      to: {},
    },
    {
      name: 'no-cycles',
      comment: 'A cycle has no first part to read or to test. Types count as imports here.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'only-dawn-imports-webgpu',
      comment: 'webgpu is an optional peer: only the file that opens Dawn may ask for it.',
      severity: 'error',
      from: { path: '^(packages|examples|tools)/', pathNot: '^packages/core/src/dawn\\.ts$' },
      to: { path: '(^|node_modules/)webgpu(/|$)' },
    },
    {
      name: 'packages-run-in-pages',
      comment:
        "Bundlers for pages refuse an import of Node's modules; process.getBuiltinModule is none.",
      severity: 'error',
      from: { path: '^packages/', pathNot: [...TEST_CODE, '^packages/(cli|storage)/'] },
      to: { dependencyTypes: ['core'], dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'no-test-code-in-source',
      comment:
        'Shipped code imports neither a test, nor a testing subpath, nor a test library. Benchmarks may.',
      severity: 'error',
      from: {
        path: '^(packages|examples|tools)/[^/]+/src/',
        pathNot: [...TEST_CODE, '^tools/bench/'],
      },
      to: { path: [...TEST_CODE, '(^|node_modules/)(vitest|fast-check)(/|$)'] },
    },
    {
      name: 'no-deep-imports',
      comment: 'Siblings meet through index.ts or testing.ts, which exports declares.',
      severity: 'error',
      from: { path: '^(packages|examples|tools)/([^/]+)/' },
      to: {
        path: '^(packages|examples|tools)/[^/]+/(src|dist)/',
        pathNot: [
          '^$1/$2/',
          '^(packages|examples|tools)/[^/]+/src/(index|testing)\\.ts$',
          // Adapters with a driver are subpaths of their own.
          '^packages/storage/src/(store-url|adapters/(sqlite|s3|rados|webhdfs|cockroach))\\.ts$',
          // The peers lie outside the workspaces, so their protocol has no package name to import by.
          '^tools/peers/src/(product-)?protocol\\.ts$',
        ],
      },
    },
    {
      name: 'packages-stand-alone',
      comment:
        'What is published never needs an example or a tool, not even in a test, but for the adapter finder.',
      severity: 'error',
      from: { path: '^packages/' },
      to: { path: '^(examples|tools)/', pathNot: '^tools/adapter/' },
    },
    {
      name: 'not-resolvable',
      comment:
        'The import leads nowhere. Peers, clients of services, TensorFlow.js and dist may be absent: all are made on demand.',
      severity: 'error',
      from: {
        pathNot: '^(tools/(peers|services)/|packages/cli/bin/|examples/train/src/tfjs\\.ts$)',
      },
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    exclude: { path: '^(packages|examples|tools)/[^/]+/(dist|node_modules)/' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.base.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['@vramkit/source', 'types', 'import', 'node', 'default'],
      mainFields: ['module', 'main', 'types'],
    },
  },
};
