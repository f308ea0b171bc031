/**
 * Rules over npm's lock files, so that `npm ci` works on any platform and from any registry.
 *
 * npm leaves optional packages of other platforms out of a lock file that it writes beside an
 * existing `node_modules`, or where the registry lacks one of them; the lock then installs on this
 * platform only. And a `resolved` address pins the registry of whoever wrote the lock; the
 * integrity hash alone identifies a package.
 */
import type { Violation } from './violation.js';

const LOCK_ADVICE =
  'remove the entry of its owner and run `npm install --package-lock-only` without node_modules';

interface LockedPackage {
  readonly resolved?: string;
  readonly link?: boolean;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

/** The part of a version 3 lock file that the rules read. */
export interface LockFile {
  readonly packages?: Readonly<Record<string, LockedPackage>>;
}

/** Checks one lock file. */
export function checkLock(path: string, lock: LockFile): Violation[] {
  const packages = lock.packages ?? {};
  const found: Violation[] = [];
  for (const [place, entry] of Object.entries(packages)) {
    if (entry.resolved !== undefined && entry.link !== true) {
      const message = `${place} has an address; install with omit-lockfile-registry-resolved set`;
      found.push({ path, line: 0, rule: 'lock-address', message });
    }
    for (const name of Object.keys(entry.optionalDependencies ?? {})) {
      if (isLocked(packages, place, name)) continue;
      const owner = place || 'the root';
      const message = `${name}, optional in ${owner}, has no entry; ${LOCK_ADVICE}`;
      found.push({ path, line: 0, rule: 'lock-optional', message });
    }
  }
  return found;
}

/** Looks for `name` where Node would: in the package's own folder, then in each folder above it. */
function isLocked(packages: LockFile['packages'] & object, place: string, name: string): boolean {
  for (let folder = place; ; folder = folder.slice(0, Math.max(0, folder.lastIndexOf('/')))) {
    const candidate = folder === '' ? `node_modules/${name}` : `${folder}/node_modules/${name}`;
    if (candidate in packages) return true;
    if (folder === '') return false;
  }
}
