/**
 * Insertions into files that list parts: exports, records, tables. Each finds its place by what
 * already stands there, and fails where that is gone, so that nothing is ever put at a guess.
 */

/**
 * Adds an import or export statement among those of the same folder, in the order of their paths.
 * @throws Error where the text has no statement of that folder.
 */
export function addStatement(text: string, statement: string): string {
  const pathOf = (line: string): string => / from '([^']+)';\s*$/.exec(line.trimEnd())?.[1] ?? '';
  const path = pathOf(statement);
  const folder = path.slice(0, path.lastIndexOf('/') + 1);
  const parts = text.split(/^(?=(?:import|export) )/m);
  const own = parts.filter((part) => pathOf(firstStatement(part)).startsWith(folder));
  const last = own[own.length - 1];
  if (last === undefined) throw new Error(`no statement from '${folder}' to put '${path}' beside`);
  const next = own.find((part) => pathOf(firstStatement(part)) > path);
  const at = next === undefined ? parts.indexOf(last) + 1 : parts.indexOf(next);
  // The last statement may be followed by code, which stays after the new one.
  const head = next === undefined ? firstStatement(last) : '';
  if (next !== undefined)
    return [...parts.slice(0, at), `${statement}\n`, ...parts.slice(at)].join('');
  const rest = last.slice(head.length).replace(/^\n/, '');
  return [...parts.slice(0, at - 1), `${head}\n${statement}\n${rest}`, ...parts.slice(at)].join('');
}

function firstStatement(part: string): string {
  return part.slice(0, part.indexOf(';') + 1);
}

/**
 * Adds a line before the one that closes a record.
 * @throws Error where the text has no such record.
 */
export function addToRecord(text: string, opening: string, line: string): string {
  const begin = text.indexOf(opening);
  const end = text.indexOf('\n};', begin);
  if (begin < 0 || end < 0) throw new Error(`no record begins with '${opening}'`);
  return `${text.slice(0, end)}\n${line}${text.slice(end)}`;
}

/**
 * Adds a row to the first table below a heading.
 * @throws Error where there is none.
 */
export function addRow(text: string, heading: string, cells: readonly string[]): string {
  const from = text.indexOf(`\n${heading}\n`);
  const table = /(?:^\|.*\n)+/m.exec(from < 0 ? '' : text.slice(from));
  if (table === null) throw new Error(`no table below '${heading}'`);
  const end = from + table.index + table[0].length;
  return `${text.slice(0, end)}| ${cells.join(' | ')} |\n${text.slice(end)}`;
}
