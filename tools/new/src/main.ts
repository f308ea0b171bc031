/**
 * `npm run new -- policy NAME` or `npm run new -- store NAME`: the skeleton, and what comes next.
 */
import { join } from 'node:path';
import { KINDS, makePart } from './make.js';

const [kindName, name, ...others] = process.argv.slice(2);
const kind = KINDS.find((each) => each === kindName);
if (kind === undefined || name === undefined || others.length > 0) {
  console.error('npm run new -- policy NAME, or npm run new -- store NAME');
  process.exitCode = 1;
} else {
  try {
    const paths = await makePart(join(import.meta.dirname, '../../..'), kind, name);
    for (const path of paths) console.log(path);
    const test = paths.find((path) => path.endsWith('.test.ts')) ?? '';
    console.log(`\nNext: npx vitest run --project cpu ${test}`);
    console.log('It fails where something is yours to write. DEVELOPMENT.md has the whole list.');
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    process.exitCode = 1;
  }
}
