/** Links within a site of HTML files that lead nowhere. */
import { posix } from 'node:path';

/**
 * Broken links, one line each.
 * @param pages Path within the site -> HTML.
 * @param exists Whether the site has a file, for links to what is no page.
 */
export function brokenLinks(
  pages: ReadonlyMap<string, string>,
  exists: (path: string) => boolean,
): string[] {
  const places = new Map<string, ReadonlySet<string>>();
  const placesOf = (path: string): ReadonlySet<string> => {
    const known = places.get(path) ?? idsOf(pages.get(path) ?? '');
    places.set(path, known);
    return known;
  };
  const broken: string[] = [];
  for (const [from, html] of pages) {
    for (const link of new Set(linksOf(html))) {
      if (/^([a-z][a-z0-9+.-]*:|\/\/)/i.test(link)) continue;
      const [path = '', place = ''] = decode(link).split('#');
      const file = path.split('?')[0] ?? '';
      const to = file === '' ? from : posix.join(posix.dirname(from), file);
      if (!pages.has(to) && !exists(to)) broken.push(`${from}: no page at ${link}`);
      else if (place !== '' && pages.has(to) && !placesOf(to).has(place)) {
        broken.push(`${from}: no such place: ${link}`);
      }
    }
  }
  return broken;
}

function linksOf(html: string): string[] {
  return [...html.matchAll(/<(?:a|img|link|script)\b[^>]*?\s(?:href|src)="([^"]*)"/g)].map(
    ([, link = '']) => link.replaceAll('&amp;', '&'),
  );
}

function idsOf(html: string): Set<string> {
  return new Set([...html.matchAll(/\s(?:id|name)="([^"]*)"/g)].map(([, id = '']) => decode(id)));
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
