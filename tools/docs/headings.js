// A TypeDoc plugin: Markdown pages are named by their first heading and sorted into guides and decision
// records; the first heading of a package's README is not shown a second time below the page's title;
// [Symbol.dispose] says what it says everywhere; further entries of a package are named as they are imported.
import { basename } from 'node:path';
import { Comment, Converter, ReflectionKind, RendererEvent } from 'typedoc';

const HEADING = /^\s*# (.+)(?:\n|$)/;

/** The first heading of parsed Markdown, as a match. */
function findHeading(parts) {
  const first = parts?.[0];
  return first?.kind === 'text' ? HEADING.exec(first.text) : null;
}

/** Called by TypeDoc. */
export function load(app) {
  app.converter.on(Converter.EVENT_CREATE_DOCUMENT, (_context, document) => {
    document.frontmatter.group ??= /\badr\b/.test(document.name) ? 'Decisions' : 'Guides';
    document.name = findHeading(document.content)?.[1] ?? document.name;
  });
  app.converter.on(Converter.EVENT_CREATE_DECLARATION, (_context, reflection) => {
    // An entry is named by what a user imports, `s3`, not by its file, `adapters/s3`.
    if (reflection.kindOf(ReflectionKind.Module)) reflection.name = basename(reflection.name);
  });
  app.converter.on(Converter.EVENT_CREATE_SIGNATURE, (_context, signature) => {
    if (signature.name !== '[dispose]' || signature.comment !== undefined) return;
    signature.comment = new Comment([{ kind: 'text', text: 'Calls `dispose()`, for `using`.' }]);
  });
  app.renderer.on(RendererEvent.BEGIN, ({ project }) => {
    for (const page of [project, ...project.getReflectionsByKind(ReflectionKind.Module)]) {
      const heading = findHeading(page.readme);
      if (heading !== null) page.readme[0].text = page.readme[0].text.slice(heading[0].length);
    }
  });
}
