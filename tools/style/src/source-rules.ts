/**
 * Rules over TypeScript sources: size, head comment, documented exports, casts.
 *
 * Sizes count lines as a reader sees them, with two exceptions. Text of another language (a
 * template literal marked by a wgsl or html comment) is data, not control flow, so it does not
 * count to the length of its function. A callback of `describe`, or a function named `describe…`,
 * lists tests.
 *
 * What the rules get wrong: a file may be long for a good reason. Its head comment then has a line
 * that starts with `Length:` and gives the reason.
 */
import ts from 'typescript';
import type { Violation } from './violation.js';

// Lines from which a file needs a reason in its head comment.
const MAX_FILE_LINES = 400;
// Lines of the longest function.
const MAX_FUNCTION_LINES = 70;
// Columns of the longest line; a line with an address in it is excused.
const MAX_COLUMNS = 100;

const LENGTH_ADVICE = 'give the reason in the head comment after "Length:"';

type Report = (node: ts.Node | number, rule: string, message: string) => void;

/** Checks one source file. */
export function checkSource(path: string, text: string): Violation[] {
  const source = ts.createSourceFile(path, text, ts.ScriptTarget.ES2022, true);
  const found: Violation[] = [];
  const report: Report = (place, rule, message) => {
    const line =
      typeof place === 'number'
        ? place
        : source.getLineAndCharacterOfPosition(place.getStart(source)).line + 1;
    found.push({ path, line, rule, message });
  };
  checkSizes(text, report);
  const isTest = path.endsWith('.test.ts');
  if (path.endsWith('/index.ts')) checkIndex(source, report);
  if (!isTest) checkExports(source, report);
  const checkCasts = /^packages\/[^/]+\/src\//.test(path) && !isTest;
  const visit = (node: ts.Node): void => {
    if (ts.isFunctionLike(node)) checkFunction(node, source, report);
    if (checkCasts && ts.isAsExpression(node)) checkCast(node, source, report);
    ts.forEachChild(node, visit);
  };
  visit(source);
  return found;
}

/** The comment that a file starts with, after a `#!` line; empty where there is none. */
export function headComment(text: string): string {
  const body = text.replace(/^#!.*\n/, '').trimStart();
  return /^(\/\*[\s\S]*?\*\/|(\/\/[^\n]*\n)+)/.exec(body)?.[0] ?? '';
}

function checkSizes(text: string, report: Report): void {
  const lines = text.replace(/\n$/, '').split('\n');
  const head = headComment(text);
  if (head.replace(/[\s/*]/g, '').length < 20) {
    report(
      1,
      'head-comment',
      'start the file with a comment: what it is, its model, its invariants',
    );
  }
  if (lines.length > MAX_FILE_LINES && !/\bLength: \S/.test(head)) {
    const message = `${lines.length} lines; at most ${MAX_FILE_LINES}, or ${LENGTH_ADVICE}`;
    report(0, 'file-length', message);
  }
  lines.forEach((line, index) => {
    if (line.length > MAX_COLUMNS && !/https?:\/\//.test(line)) {
      report(index + 1, 'line-length', `${line.length} columns, at most ${MAX_COLUMNS}`);
    }
  });
}

function checkFunction(node: ts.SignatureDeclaration, source: ts.SourceFile, report: Report): void {
  if (isListOfTests(node, source)) return;
  const lineAt = (position: number): number => source.getLineAndCharacterOfPosition(position).line;
  let lines = lineAt(node.end) - lineAt(node.getStart(source)) + 1;
  const subtractText = (child: ts.Node): void => {
    if (
      ts.isTemplateLiteral(child) &&
      /\/\*\s*(wgsl|html)\s*\*\/\s*$/.test(leading(child, source))
    ) {
      lines -= lineAt(child.end) - lineAt(child.getStart(source));
    } else ts.forEachChild(child, subtractText);
  };
  subtractText(node);
  if (lines <= MAX_FUNCTION_LINES) return;
  const name = node.name?.getText(source) ?? 'this function';
  report(node, 'function-length', `${name} has ${lines} lines, at most ${MAX_FUNCTION_LINES}`);
}

function leading(node: ts.Node, source: ts.SourceFile): string {
  return source.text.slice(node.getFullStart(), node.getStart(source));
}

function isListOfTests(node: ts.SignatureDeclaration, source: ts.SourceFile): boolean {
  if (node.name !== undefined) return /^describe/.test(node.name.getText(source));
  return (
    ts.isCallExpression(node.parent) && /^describe/.test(node.parent.expression.getText(source))
  );
}

function checkIndex(source: ts.SourceFile, report: Report): void {
  for (const statement of source.statements) {
    if (ts.isExportDeclaration(statement) && statement.moduleSpecifier !== undefined) continue;
    report(statement, 'index-only-exports', 'an index.ts names exports of other files, no code');
  }
}

function checkExports(source: ts.SourceFile, report: Report): void {
  const documented = new Set<string>();
  for (const statement of source.statements) {
    const isExported =
      ts.canHaveModifiers(statement) &&
      ts.getModifiers(statement)?.some((m) => m.kind === ts.SyntaxKind.ExportKeyword);
    if (isExported !== true) continue;
    if (ts.isInterfaceDeclaration(statement) && source.fileName.startsWith('packages/')) {
      checkOptions(statement, source, report);
    }
    const declared = ts.isVariableStatement(statement)
      ? statement.declarationList.declarations[0]?.name
      : 'name' in statement
        ? (statement as ts.DeclarationStatement).name // narrowed by the line above
        : undefined;
    const name = declared?.getText(source) ?? 'default';
    // An overload's later signatures share the comment of the first.
    const hasDoc = documented.has(name) || hasOwnComment(statement, source);
    if (hasDoc) documented.add(name);
    else report(statement, 'documented-export', `${name} has no /** comment */`);
  }
}

/** An option says its unit, default and cost; other members may be clear from name and type. */
function checkOptions(
  declaration: ts.InterfaceDeclaration,
  source: ts.SourceFile,
  report: Report,
): void {
  if (!declaration.name.text.endsWith('Options')) return;
  for (const member of declaration.members) {
    if (ts.getJSDocCommentsAndTags(member).some(ts.isJSDoc)) continue;
    const name = member.name?.getText(source) ?? 'this member';
    report(member, 'documented-option', `${name} has no /** comment */: unit, default, cost`);
  }
}

/**
 * The head comment belongs to the file, also where the compiler gives it to the first statement.
 */
function hasOwnComment(statement: ts.Statement, source: ts.SourceFile): boolean {
  const head = source.text.indexOf(headComment(source.text));
  return ts.getJSDocCommentsAndTags(statement).some((doc) => ts.isJSDoc(doc) && doc.pos !== head);
}

function checkCast(node: ts.AsExpression, source: ts.SourceFile, report: Report): void {
  if (node.type.getText(source) === 'const') return;
  let statement: ts.Node = node;
  while (!ts.isStatement(statement) && !ts.isClassElement(statement)) statement = statement.parent;
  const lines = source.text.split('\n');
  const lineOf = (place: ts.Node): number =>
    source.getLineAndCharacterOfPosition(place.getStart(source)).line;
  const nearby = [lineOf(node), lineOf(node) - 1, lineOf(statement) - 1];
  if (nearby.some((line) => /\/\/|\/\*|\*\//.test(lines[line] ?? ''))) return;
  const type = node.type.getText(source);
  report(node, 'unexplained-cast', `"as ${type}" needs a comment: why it holds`);
}
