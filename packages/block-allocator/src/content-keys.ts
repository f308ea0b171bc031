/**
 * Content keys: what separates sequences whose tokens are equal and whose K and V are not.
 *
 * A namespace (an adapter, a tenant's salt) belongs to the whole sequence; it goes into the first
 * block and, through the chain, into all behind it. A span belongs to some tokens: an image's
 * placeholder tokens are the same for every image, so the blocks that they touch carry the image's
 * name and where in the image the block begins.
 */
import { assertArgument } from '@vramkit/core';

/** What separates a sequence from others with equal tokens. Plain data. */
export interface ContentKeys {
  /** Adapter, tenant or salt. Default: '', shared by all. */
  readonly namespace?: string;
  /** Spans of tokens that stand for something else, ascending. Default: none. */
  readonly spans?: readonly ContentSpan[];
}

/** Tokens `[start, end)` that stand for an image, an embedding or the like. */
export interface ContentSpan {
  readonly start: number;
  readonly end: number;
  /** Names the contents, such as a hash of the image. */
  readonly key: string;
}

/** No keys. */
export const NO_KEYS: ContentKeys = Object.freeze({});

/** The extra key of the block of tokens `[start, end)`; '' for none. */
export function extraKey(keys: ContentKeys, start: number, end: number): string {
  const { namespace = '', spans } = keys;
  const ofSequence = start === 0 ? namespace : '';
  const touched = spans?.filter((span) => span.start < end && span.end > start) ?? [];
  if (touched.length === 0 && ofSequence === '') return '';
  // JSON keeps parts apart whatever characters they hold.
  return JSON.stringify([ofSequence, ...touched.map((span) => [span.key, start - span.start])]);
}

/** @throws VramError `invalid-argument` where a span is empty or negative. */
export function checkKeys(keys: ContentKeys): void {
  for (const { start, end } of keys.spans ?? []) {
    assertArgument(start >= 0 && end > start, `[${start}, ${end}) is no span of tokens`);
  }
}
