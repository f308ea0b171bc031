/**
 * Points the unit tests at the built packages.
 *
 * A test stands beside its source and imports `./block-pool.js`. Run on `dist`, the same names come
 * from the bundles in `dist`, one per export, and siblings resolve to their bundles too,
 * as they do for a user. A test of something that the package does not export cannot run that way:
 * it is left out, with the name as its reason.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import ts from 'typescript';

/** What to run on `dist`, and how. */
export interface DistPlan {
  /** Test files that run, as absolute paths. */
  readonly tests: readonly string[];
  /** Test files that do not, with the reason. */
  readonly skipped: readonly { readonly test: string; readonly reason: string }[];
  /** Per test file: relative import -> absolute path of the bundle. */
  readonly redirects: ReadonlyMap<string, ReadonlyMap<string, string>>;
}

/** One relative import of a test. */
export interface RelativeImport {
  /** As written, for example `./block-pool.js`. */
  readonly specifier: string;
  /** Imported values; types leave no trace at run time. */
  readonly names: readonly string[];
}

/** Relative imports of values in a source text. `*` stands for a namespace import. */
export function relativeImports(text: string): RelativeImport[] {
  const source = ts.createSourceFile('x.ts', text, ts.ScriptTarget.ES2022);
  return source.statements.filter(ts.isImportDeclaration).flatMap((statement) => {
    const specifier = ts.isStringLiteral(statement.moduleSpecifier)
      ? statement.moduleSpecifier.text
      : '';
    const clause = statement.importClause;
    if (!specifier.startsWith('.') || clause === undefined) return [];
    if (clause.phaseModifier === ts.SyntaxKind.TypeKeyword) return [];
    const bindings = clause.namedBindings;
    if (bindings === undefined || ts.isNamespaceImport(bindings))
      return { specifier, names: ['*'] };
    const values = bindings.elements.filter((element) => !element.isTypeOnly);
    const names = values.map((element) => (element.propertyName ?? element.name).text);
    return names.length > 0 ? { specifier, names } : [];
  });
}

/**
 * Plans a run of `tests` (paths relative to `root`, each below `packages/<name>/src`).
 * @throws Error where a package of theirs is not built.
 */
export async function planDistTests(root: string, tests: readonly string[]): Promise<DistPlan> {
  const skipped: { test: string; reason: string }[] = [];
  const redirects = new Map<string, Map<string, string>>();
  for (const test of tests) {
    const folder = join(root, test.slice(0, test.indexOf('/src/')), 'dist');
    const bundles = await readBundles(folder);
    const redirect = new Map<string, string>();
    let reason = '';
    for (const { specifier, names } of relativeImports(readFileSync(join(root, test), 'utf8'))) {
      const bundle = bundles.find(({ exported }) => names.every((name) => exported.has(name)));
      if (bundle !== undefined) redirect.set(specifier, bundle.path);
      else {
        const missing = names.filter((name) => !bundles.some(({ exported }) => exported.has(name)));
        reason = `not exported: ${missing.join(', ') || names.join(', ')} of ${specifier}`;
      }
    }
    if (reason === '') redirects.set(join(root, test), redirect);
    else skipped.push({ test, reason });
  }
  return { tests: [...redirects.keys()], skipped, redirects };
}

interface Bundle {
  readonly path: string;
  readonly exported: ReadonlySet<string>;
}

async function readBundles(folder: string): Promise<Bundle[]> {
  if (!existsSync(folder)) throw new Error(`${dirname(folder)} is not built: run npm run build`);
  const manifest = readFileSync(join(dirname(folder), 'package.json'), 'utf8');
  // What exports nothing is a command: importing it would run it.
  const { exports } = JSON.parse(manifest) as { readonly exports?: object }; // A manifest of ours.
  if (exports !== undefined && !('.' in exports)) return [];
  const names = readdirSync(folder).filter((name) => /^(?!chunk-).*\.js$/.test(name));
  const paths = ['index.js', ...names.filter((name) => name !== 'index.js')]
    .map((name) => join(folder, name))
    .filter(existsSync);
  return Promise.all(
    paths.map(async (path) => {
      // import() types nothing of a computed path; only the names are read.
      const module = (await import(pathToFileURL(path).href)) as Readonly<Record<string, unknown>>;
      return { path, exported: new Set(Object.keys(module)) };
    }),
  );
}
