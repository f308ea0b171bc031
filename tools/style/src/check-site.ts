/**
 * Looks at the built site, `docs-site`: every entry of a package that programs import has a page,
 * every link within it leads to a page and a place on it, and its pages load in a headless
 * Chromium, at two widths, without a complaint on the console and without a page that is wider
 * than the window.
 *
 *     node --import tsx src/check-site.ts [PICTURES]
 *
 * `PICTURES` is a folder for a picture of each page that is visited. All pages are read for links;
 * the guides, the packages and some pages of each kind are visited. Ends with code 1 where anything
 * is wrong.
 */
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Browser } from './browser.js';
import { brokenLinks } from './site-links.js';

const site = join(import.meta.dirname, '../../../docs-site');
const WIDTHS = [1280, 390];
const PER_KIND = 3;

if (!existsSync(join(site, 'index.html'))) {
  throw new Error('docs-site is not built: npm run docs');
}
const pages = readdirSync(site, { recursive: true, encoding: 'utf8' })
  .filter((path) => path.endsWith('.html'))
  .sort();
const texts = new Map(pages.map((path) => [path, readFileSync(join(site, path), 'utf8')]));
const problems = brokenLinks(texts, (path) => existsSync(join(site, path)));
console.log(`${pages.length} pages, ${problems.length} broken links`);

/** Pages of the entries that packages export; suites for tests are described in READMEs. */
function entryPages(): string[] {
  const packages = join(import.meta.dirname, '../../../packages');
  return readdirSync(packages).flatMap((name) => {
    const text = readFileSync(join(packages, name, 'package.json'), 'utf8');
    // JSON.parse is a foreign boundary: npm owns this format.
    const { exports = {} } = JSON.parse(text) as { exports?: Readonly<Record<string, unknown>> };
    return Object.keys(exports)
      .filter((entry) => !['./package.json', './testing'].includes(entry))
      .map((entry) => `modules/_vramkit_${name}${entry.slice(1).replace('/', '.')}.html`);
  });
}
for (const page of entryPages()) if (!texts.has(page)) problems.push(`there is no ${page}`);

/** Folders are kinds of pages; of the many small ones a few stand for the rest. */
function chosen(): string[] {
  const kinds = new Map<string, string[]>();
  for (const path of pages) {
    const kind = path.includes('/') ? path.slice(0, path.indexOf('/')) : '';
    kinds.set(kind, [...(kinds.get(kind) ?? []), path]);
  }
  return [...kinds].flatMap(([kind, paths]) => {
    return ['', 'documents', 'modules'].includes(kind) ? paths : paths.slice(0, PER_KIND);
  });
}

const pictures = process.argv[2];
if (pictures !== undefined) mkdirSync(pictures, { recursive: true });
const expression = 'document.documentElement.scrollWidth - window.innerWidth';
using browser = await Browser.open();
let visits = 0;
for (const path of chosen()) {
  for (const width of WIDTHS) {
    const url = pathToFileURL(join(site, path)).href;
    const picture = pictures !== undefined;
    const page = await browser.visit(url, { width, expression, picture });
    visits += 1;
    for (const error of page.errors) problems.push(`${path}: at ${width}: ${error}`);
    const over = Number(page.value);
    if (!(over <= 0)) problems.push(`${path}: at ${width}: ${over} pixels wider than the window`);
    if (pictures !== undefined && page.picture !== undefined) {
      const name = `${path.replaceAll('/', '-')}-${width}.png`;
      writeFileSync(join(pictures, name), page.picture);
    }
  }
}
console.log(`${visits} visits`);
for (const problem of problems) console.log(problem);
console.log(`${problems.length} problems`);
if (problems.length > 0) process.exitCode = 1;
