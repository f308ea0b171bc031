/**
 * Compiles every TypeScript example of sources, READMEs and guides with the workspace's settings.
 *
 * Each example becomes a module of its own that exists only in the compiler's memory, in a folder
 * of the workspace, so that its imports resolve as those of any sibling. Errors are printed at the
 * place of the example; ends with code 1 where there are any.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';
import { findExamples } from './examples.js';
import type { Example } from './examples.js';
import { workspaceFiles } from './files.js';

const root = join(import.meta.dirname, '../../..');
const WITH_EXAMPLES = /^(packages\/.*\.ts|docs\/guides\/.*\.md|(packages\/[^/]+\/)?README\.md)$/;

function readOptions(): ts.CompilerOptions {
  const { config, error } = ts.readConfigFile(join(root, 'tsconfig.base.json'), ts.sys.readFile);
  if (error !== undefined)
    throw new Error(ts.flattenDiagnosticMessageText(error.messageText, '\n'));
  return ts.parseJsonConfigFileContent(config, ts.sys, root, { noEmit: true }).options;
}

function compile(modules: ReadonlyMap<string, Example>): readonly ts.Diagnostic[] {
  const options = readOptions();
  const host = ts.createCompilerHost(options);
  const { fileExists, readFile, getSourceFile } = host;
  // `export {}` makes a module of an example without imports; `await` at its top is then allowed.
  const textOf = (path: string): string | undefined => {
    const code = modules.get(path)?.code;
    return code === undefined ? undefined : `${code}\nexport {};\n`;
  };
  host.fileExists = (path) => modules.has(path) || fileExists(path);
  host.readFile = (path) => textOf(path) ?? readFile(path);
  host.getSourceFile = (path, languageVersion, ...rest) => {
    const text = textOf(path);
    if (text === undefined) return getSourceFile(path, languageVersion, ...rest);
    return ts.createSourceFile(path, text, languageVersion);
  };
  return ts.getPreEmitDiagnostics(ts.createProgram([...modules.keys()], options, host));
}

const examples = workspaceFiles(root)
  .filter((path) => WITH_EXAMPLES.test(path))
  .flatMap((path) => findExamples(path, readFileSync(join(root, path), 'utf8')));
const modules = new Map(
  examples.map((example, index) => [join(root, `tools/style/example-${index}.ts`), example]),
);
const diagnostics = compile(modules);
for (const { file, start, messageText } of diagnostics) {
  const message = ts.flattenDiagnosticMessageText(messageText, '\n');
  const example = file === undefined ? undefined : modules.get(file.fileName);
  const offset = file === undefined ? 0 : file.getLineAndCharacterOfPosition(start ?? 0).line;
  const place =
    example === undefined
      ? `${file?.fileName ?? 'compiler'}:${offset + 1}`
      : `${example.path}:${example.line + offset}`;
  console.log(`${place}  example: ${message}`);
}
console.log(`${examples.length} examples compiled, ${diagnostics.length} errors`);
if (diagnostics.length > 0) process.exitCode = 1;
