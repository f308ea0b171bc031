/**
 * Which files the checks read: everything in the workspace that a person wrote.
 *
 * The tree is walked rather than asked of git, so that the checks also run in an unpacked archive
 * and in a checkout that git calls dubious.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

const SKIPPED_FOLDERS = new Set(['node_modules', 'dist', '.git', '.nx', 'coverage', 'docs-site']);
const MAX_FILES = 20_000;

/**
 * Paths of all files below `root`, relative to it, with `/` between parts, sorted.
 * @throws Error where there are more than 20,000: then a generated folder is missing from the list.
 */
export function workspaceFiles(root: string): string[] {
  const found: string[] = [];
  const folders = [''];
  for (let folder = folders.pop(); folder !== undefined; folder = folders.pop()) {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory() && !SKIPPED_FOLDERS.has(entry.name)) folders.push(path);
      else if (entry.isFile()) found.push(path);
    }
    if (found.length > MAX_FILES) throw new Error(`more than ${MAX_FILES} files below ${root}`);
  }
  return found.sort();
}
