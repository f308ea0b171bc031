/** Which of this folder's pinned packages are not installed, or not in the pinned version. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

function readJson(path: string): { version?: string; dependencies?: Record<string, string> } {
  // JSON.parse is a foreign boundary: npm owns this format.
  return JSON.parse(readFileSync(path, 'utf8')) as ReturnType<typeof readJson>;
}

/** As `name@version`. */
export function missingClients(folder: string): string[] {
  const { dependencies = {} } = readJson(join(folder, 'package.json'));
  return Object.entries(dependencies)
    .filter(([name, version]) => {
      try {
        return readJson(join(folder, 'node_modules', name, 'package.json')).version !== version;
      } catch {
        return true;
      }
    })
    .map(([name, version]) => `${name}@${version}`);
}
