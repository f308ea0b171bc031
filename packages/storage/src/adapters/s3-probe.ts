/** Which conditional writes an endpoint of S3 honours, asked on one small object. */
import { isStatus, type S3Calls } from './s3-calls.js';

/** What was found. */
export interface S3Conditions {
  /** `If-None-Match: *` refuses to overwrite. */
  readonly createIfAbsent: boolean;
  /** How `If-Match` must name an ETag so that the right one passes and a wrong one does not. */
  readonly matchForm: 'quoted' | 'bare' | undefined;
}

/** Asks; the object is gone afterwards. */
export async function probeConditions(calls: S3Calls, key: string): Promise<S3Conditions> {
  const body = (value: number): Uint8Array => Uint8Array.of(value);
  /** Whether a put passed; other failures than of its condition are thrown. */
  const passes = async (value: number, headers: Record<string, string>): Promise<boolean> => {
    try {
      await calls.put(key, body(value), headers);
      return true;
    } catch (error) {
      // 501 and 400 are how services say that they do not know the header.
      if ([412, 404, 400, 501].some((status) => isStatus(error, status))) return false;
      throw error;
    }
  };
  try {
    const createIfAbsent =
      (await passes(1, { IfNoneMatch: '*' })) && !(await passes(2, { IfNoneMatch: '*' }));
    const honours = async (value: number, quote: string): Promise<boolean> => {
      const tag = await calls.put(key, body(value), {});
      const wrong = 'd41d8cd98f00b204e9800998ecf8427e'; // of no bytes, which was never put
      const refuses = !(await passes(value + 1, { IfMatch: `${quote}${wrong}${quote}` }));
      return refuses && (await passes(value + 2, { IfMatch: `${quote}${tag}${quote}` }));
    };
    const matchForm = (await honours(3, '"'))
      ? 'quoted'
      : (await honours(6, ''))
        ? 'bare'
        : undefined;
    return { createIfAbsent, matchForm };
  } finally {
    await calls.delete(key).catch(() => undefined);
  }
}
