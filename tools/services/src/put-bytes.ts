/** Blobs of a writer that is killed at each of its steps, known to it and to who looks after it. */
import { testBytes } from '@vramkit/storage/testing';

/** What is under the key 'steps/kept' before. */
export const OLD_BYTES = testBytes(300_000, 1);
/** What the writer puts there: more than one part of any store. */
export const NEXT_BYTES = testBytes(5 * 2 ** 20 + 1, 2);
/** What it puts under 'steps/folder/new', where nothing may be. */
export const NEW_BYTES = testBytes(5000, 3);
