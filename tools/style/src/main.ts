/**
 * Runs every style rule over the workspace and prints what is wrong, one line each.
 *
 *     node --import tsx src/main.ts [root]
 *
 * Ends with code 1 where anything was found.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { workspaceFiles } from './files.js';
import { checkLock } from './lock-rules.js';
import type { LockFile } from './lock-rules.js';
import { checkSource } from './source-rules.js';
import { checkName, checkText, checkTwin } from './text-rules.js';
import { formatViolation } from './violation.js';
import type { Violation } from './violation.js';

const root = resolve(process.argv[2] ?? join(import.meta.dirname, '../../..'));
const paths = workspaceFiles(root);
const known = new Set(paths);
const violations: Violation[] = [];
for (const path of paths) {
  violations.push(...checkName(path));
  if (!/\.(ts|js|cjs|mjs|md|json|sh|yml|yaml|html)$|^\.ci\/run$/.test(path)) continue;
  const text = readFileSync(join(root, path), 'utf8');
  violations.push(...checkText(path, text), ...checkTwin(path, text, known));
  if (path.endsWith('.ts')) violations.push(...checkSource(path, text));
  // JSON.parse is a foreign boundary: npm owns this format.
  if (path.endsWith('package-lock.json')) {
    violations.push(...checkLock(path, JSON.parse(text) as LockFile));
  }
}
for (const violation of violations) console.log(formatViolation(violation));
console.log(`${violations.length} style violations in ${paths.length} files`);
if (violations.length > 0) process.exitCode = 1;
