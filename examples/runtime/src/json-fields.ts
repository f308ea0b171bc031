/**
 * Reads JSON files that lie beside weights (`config.json`, `tokenizer.json`), checking the kind
 * of each value that is asked for. A file above its cap is not parsed.
 */
import { VramError } from '@vramkit/core';
import { fileSource } from '@vramkit/packer';

/** An object of a JSON file; accessors give `undefined` for an absent key and for null. */
export class JsonFields {
  /** The object itself. */
  readonly value: Readonly<Record<string, unknown>>;
  readonly #file: string;

  constructor(file: string, value: Readonly<Record<string, unknown>>) {
    this.#file = file;
    this.value = value;
  }

  /** Finite number; @throws VramError `corrupt-data` for another kind. */
  number(key: string): number | undefined {
    const value = this.value[key] ?? undefined;
    return value === undefined || (typeof value === 'number' && Number.isFinite(value))
      ? value
      : this.#mismatch(key, 'a finite number');
  }

  /** Finite number; @throws VramError `not-found` where it is absent. */
  requiredNumber(key: string): number {
    const value = this.number(key);
    if (value !== undefined) return value;
    throw new VramError('not-found', `${this.#file}: '${key}' is missing`, {
      context: { file: this.#file, key },
    });
  }

  /** Text; @throws VramError `corrupt-data` for another kind. */
  string(key: string): string | undefined {
    const value = this.value[key] ?? undefined;
    return value === undefined || typeof value === 'string'
      ? value
      : this.#mismatch(key, 'a string');
  }

  /** Boolean; @throws VramError `corrupt-data` for another kind. */
  boolean(key: string): boolean | undefined {
    const value = this.value[key] ?? undefined;
    return value === undefined || typeof value === 'boolean'
      ? value
      : this.#mismatch(key, 'a boolean');
  }

  /** Object; @throws VramError `corrupt-data` for another kind. */
  fields(key: string): JsonFields | undefined {
    const value = this.value[key] ?? undefined;
    if (value === undefined) return undefined;
    return isObject(value) ? new JsonFields(this.#file, value) : this.#mismatch(key, 'an object');
  }

  /**
   * A number or an array of numbers, as an array.
   * @throws VramError `corrupt-data` for another kind.
   */
  numbers(key: string): readonly number[] {
    const value = this.value[key] ?? [];
    const list: readonly unknown[] = Array.isArray(value) ? value : [value];
    return list.map((each) =>
      typeof each === 'number' ? each : this.#mismatch(key, 'a number or numbers'),
    );
  }

  #mismatch(key: string, expected: string): never {
    throw new VramError('corrupt-data', `${this.#file}: '${key}' must be ${expected}`, {
      context: { file: this.#file, key },
    });
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Reads the JSON object in the file at `path`, of at most `maxBytes`.
 * @throws VramError `not-found` where there is no such file, `corrupt-data` where it is no JSON
 * object or too large.
 */
export async function readJsonFile(path: string, maxBytes: number): Promise<JsonFields> {
  const source = await fileSource(path);
  try {
    if (source.sizeBytes > maxBytes) {
      throw new VramError('corrupt-data', `${path}: ${source.sizeBytes} B, at most ${maxBytes} B`, {
        context: { file: path, sizeBytes: source.sizeBytes, maxBytes },
      });
    }
    const text = new TextDecoder().decode(await source.read(0, source.sizeBytes));
    return new JsonFields(path, parseObject(path, text));
  } finally {
    await source.close();
  }
}

function parseObject(path: string, text: string): Record<string, unknown> {
  let cause: unknown;
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch (error) {
    cause = error;
  }
  throw new VramError('corrupt-data', `${path}: not a JSON object`, {
    cause,
    context: { file: path },
  });
}
