/**
 * Writes the skeleton of a policy or a store, and a line wherever one has to be known.
 *
 * A skeleton compiles, is formatted and keeps every rule that a machine checks. Its test fails
 * where its author has to write: the formula of a policy, the service of a store.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { format, resolveConfig } from 'prettier';
import { addRow, addStatement, addToRecord } from './edits.js';
import { readName, spellOut, type Names } from './names.js';

/** What can be made. */
export const KINDS = ['policy', 'store'] as const;

/** One of {@link KINDS}. */
export type Kind = (typeof KINDS)[number];

interface Plan {
  /** Template -> path of the new file. */
  readonly files: Readonly<Record<string, string>>;
  /** Path -> its text with the new part in it. */
  readonly edits: Readonly<Record<string, (text: string) => string>>;
  readonly changeset: string;
}

function planPolicy({ kebab, camel }: Names): Plan {
  const source = `packages/eviction/src/kv/${kebab}`;
  return {
    files: { policy: `${source}.ts`, 'policy-test': `${source}.test.ts` },
    edits: {
      'packages/eviction/src/index.ts': (text) =>
        addStatement(text, `export { ${camel} } from './kv/${kebab}.js';`),
      'packages/eviction/src/registry.ts': (text) =>
        addToRecord(
          addStatement(text, `import { ${camel} } from './kv/${kebab}.js';`),
          'const FACTORIES',
          `  ${camel},`,
        ),
      'packages/eviction/README.md': (text) => {
        const cells = [`\`${camel}\``, 'the newest tokens', 'nothing', 'nothing', '-', '-'];
        return addRow(text, '## KV policies', cells);
      },
    },
    changeset: `---\n'@vramkit/eviction': minor\n---\n\nThe KV policy \`${camel}\`.\n`,
  };
}

function planStore({ kebab, camel, pascal }: Names): Plan {
  const source = `packages/storage/src/adapters/${kebab}`;
  const types = `type ${pascal}Client, type ${pascal}StoreOptions`;
  return {
    files: { store: `${source}.ts`, 'store-test': `${source}.test.ts` },
    edits: {
      'packages/storage/src/index.ts': (text) =>
        addStatement(text, `export { ${camel}Store, ${types} } from './adapters/${kebab}.js';`),
      'packages/storage/README.md': (text) => {
        const from = '`@vramkit/storage`';
        const cells = [`\`${camel}Store\``, from, 'handed in', 'yes', 'yes', 'nothing yet'];
        return addRow(text, '## Adapters', cells);
      },
    },
    changeset: `---\n'@vramkit/storage': minor\n---\n\nThe store \`${camel}Store\`.\n`,
  };
}

/**
 * Makes it below `root`, the workspace.
 * @returns Paths of what was written, new files first.
 * @throws TypeError for a name that is none; Error where one of the new files exists. Then nothing
 * was written.
 */
export async function makePart(root: string, kind: Kind, name: string): Promise<string[]> {
  const names = readName(name);
  const plan = kind === 'policy' ? planPolicy(names) : planStore(names);
  const templates = join(import.meta.dirname, '../templates');
  const texts = new Map<string, string>();
  for (const [template, path] of Object.entries(plan.files)) {
    texts.set(path, spellOut(readFileSync(join(templates, `${template}.txt`), 'utf8'), names));
  }
  texts.set(`.changeset/${kind}-${names.kebab}.md`, plan.changeset);
  const taken = [...texts.keys()].find((path) => existsSync(join(root, path)));
  if (taken !== undefined) throw new Error(`${taken} exists already`);
  for (const [path, edit] of Object.entries(plan.edits)) {
    texts.set(path, edit(readFileSync(join(root, path), 'utf8')));
  }
  const formatted = await Promise.all(
    [...texts].map(async ([path, text]): Promise<[string, string]> => {
      const filepath = join(root, path);
      return [filepath, await format(text, { ...(await resolveConfig(filepath)), filepath })];
    }),
  );
  for (const [path, text] of formatted) writeFileSync(path, text);
  return [...texts.keys()];
}
