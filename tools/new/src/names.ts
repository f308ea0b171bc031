/**
 * The one name of a part in the spellings that files, functions and classes need.
 */

/** The spellings of a name. */
export interface Names {
  /** Of files: `key-diff`. */
  readonly kebab: string;
  /** Of functions: `keyDiff`. */
  readonly camel: string;
  /** Of interfaces and classes: `KeyDiff`. */
  readonly pascal: string;
}

/**
 * Reads `key-diff`, `keyDiff` or `KeyDiff`.
 * @throws TypeError for anything else.
 */
export function readName(name: string): Names {
  const kebab = name.replace(/([a-z0-9])([A-Z])/g, '$1-$2').toLowerCase();
  if (!/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/.test(kebab)) {
    throw new TypeError(`'${name}' is no name: words of letters and digits, such as key-diff`);
  }
  const camel = kebab.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());
  return { kebab, camel, pascal: camel.slice(0, 1).toUpperCase() + camel.slice(1) };
}

/** A template with `__kebab__`, `__camel__` and `__Pascal__` spelled out. */
export function spellOut(template: string, { kebab, camel, pascal }: Names): string {
  return template
    .replaceAll('__kebab__', kebab)
    .replaceAll('__camel__', camel)
    .replaceAll('__Pascal__', pascal);
}
