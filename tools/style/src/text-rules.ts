/**
 * Rules that need no syntax tree: notes without an issue, paths of one machine, names of files.
 *
 * Limits: a rule sees characters, not meaning, so this file and its test, which must spell what
 * they forbid, are excused by name.
 */
import type { Violation } from './violation.js';

const TEXT = /\.(ts|js|cjs|mjs|md|json|sh|yml|yaml|html)$|^\.ci\/run$/;
const EXCUSED = /^tools\/style\/src\/text-rules(\.test)?\.ts$|package-lock\.json$/;

const UNFINISHED = /\b(TODO|FIXME|XXX|HACK)\b(?!\(#\d+\))/;
const MACHINE_PATH = /(?:^|[\s"'`(=,:])(\/(?:work|root|home|Users)\/[\w.-]+)/;
const VAGUE_NAME = /(^|\/)(utils?|helpers?|types|misc|common)\.ts$/;
const SOURCE_NAME = /^[a-z0-9]+(-[a-z0-9]+)*(\.(wgsl|cpu|gpu|bench|test|gpu\.test))?\.ts$/;

/** Checks the name of a file. Only files below a `src` folder are named by the rules. */
export function checkName(path: string): Violation[] {
  if (!/(^|\/)src\/.*\.ts$/.test(path)) return [];
  const name = path.slice(path.lastIndexOf('/') + 1);
  const found: Violation[] = [];
  const report = (rule: string, message: string): void =>
    void found.push({ path, line: 0, rule, message });
  if (VAGUE_NAME.test(path)) report('vague-name', 'name the file by the concept it holds');
  if (!SOURCE_NAME.test(name)) report('kebab-case', `${name} is not lower-case words joined by -`);
  return found;
}

/** Checks each line of a text file. */
export function checkText(path: string, text: string): Violation[] {
  if (!TEXT.test(path) || EXCUSED.test(path)) return [];
  const found: Violation[] = [];
  text.split('\n').forEach((content, index) => {
    const line = index + 1;
    const unfinished = UNFINISHED.exec(content);
    if (unfinished !== null) {
      const message = `${unfinished[1]} needs an issue, as in ${unfinished[1]}(#12), or goes`;
      found.push({ path, line, rule: 'unfinished', message });
    }
    const machinePath = MACHINE_PATH.exec(content);
    if (machinePath !== null) {
      const message = `${machinePath[1]} exists on one machine only; take it from the environment`;
      found.push({ path, line, rule: 'machine-path', message });
    }
  });
  return found;
}

/**
 * Checks that a WGSL kernel has the CPU twin that defines it: `name.cpu.ts` beside `name.wgsl.ts`,
 * or another one in that folder that the file names. `paths` is the whole workspace.
 */
export function checkTwin(path: string, text: string, paths: ReadonlySet<string>): Violation[] {
  if (!/^packages\/.*\.wgsl\.ts$/.test(path) || !text.includes('defineKernel(')) return [];
  const folder = path.slice(0, path.lastIndexOf('/') + 1);
  const named = [...text.matchAll(/[\w-]+\.cpu\.ts/g)].map(([name]) => folder + name);
  const twins = [path.replace(/\.wgsl\.ts$/, '.cpu.ts'), ...named];
  if (twins.some((twin) => paths.has(twin))) return [];
  const message = 'no .cpu.ts of that name defines it; add one, or name the one that does';
  return [{ path, line: 0, rule: 'cpu-twin', message }];
}
