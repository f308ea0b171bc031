// A TypeDoc plugin: pages are named by the first heading of their Markdown, which then is not shown a
// second time below the page's title.
import { Converter, ReflectionKind, RendererEvent } from 'typedoc';

const HEADING = /^\s*# (.+)\n/;

/** Cuts the first heading out of parsed Markdown and returns its text. */
function takeHeading(parts) {
  const first = parts?.[0];
  const heading = first?.kind === 'text' ? HEADING.exec(first.text) : null;
  if (heading === null) return undefined;
  first.text = first.text.slice(heading[0].length);
  return heading[1];
}

/** Called by TypeDoc. */
export function load(app) {
  app.converter.on(Converter.EVENT_CREATE_DOCUMENT, (_context, document) => {
    document.name = takeHeading(document.content) ?? document.name;
  });
  app.renderer.on(RendererEvent.BEGIN, (event) => {
    takeHeading(event.project.readme);
    for (const module of event.project.getReflectionsByKind(ReflectionKind.Module)) {
      takeHeading(module.readme);
    }
  });
}
