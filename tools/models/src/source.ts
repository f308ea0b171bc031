/**
 * A place that a model file can be fetched from, and how it reports what it does.
 */
import type { RemoteModel } from './catalog.js';

/**
 * Called with the bytes done so far, the bytes in all and what is being done. Bytes are those of
 * the download, which may be a compressed archive.
 */
export type ModelProgress = (
  doneBytes: number,
  totalBytes: number,
  stage: 'download' | 'unpack' | 'verify',
) => void;

/** What a source works with. */
export interface FetchContext {
  /** Folder of this fetch; removed by the caller afterwards. */
  readonly staging: string;
  readonly onProgress: ModelProgress;
  readonly signal: AbortSignal | undefined;
}

/** One way to get a model file. */
export interface ModelSource {
  /** Name for progress and errors. */
  readonly name: string;
  /** Puts the file anywhere in `context.staging` and gives its path; the caller verifies it. */
  fetch(model: RemoteModel, context: FetchContext): Promise<string>;
}
