/**
 * Results of cells, one file each, so that a study that was stopped goes on where it was.
 *
 * A file appears by a rename: there is no half of one. The folder's name holds what all cells of a
 * study share, so that figures of different sizes never meet.
 */
import { mkdir, readdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Half } from './documents.js';
import { cellName, type Cell } from './grid.js';
import type { ScoreMeaning } from './score-meaning.js';

/** How well a policy's cache predicts the true continuation of a document. */
export interface ContinuationFigures {
  /** Negative log-likelihood of each true token, nats. */
  readonly losses: readonly number[];
  /** Whether the most likely token is that of the full cache, 1 or 0, per token. */
  readonly agrees: readonly number[];
  /** Divergence of the next-token distribution from that of the full cache, nats, per token. */
  readonly divergences: readonly number[];
  /** Relative error of the attention output right after the prefill, [layers][heads]. */
  readonly attentionError: readonly (readonly number[])[];
  /** Share of attention on what stayed, [layers][heads]. */
  readonly keptMass: readonly (readonly number[])[];
  readonly kvPeakBytes: number;
  /** Time of the decision at the end of the prefill. */
  readonly prefillEvictionMs: number;
}

/** One answered question. */
export interface AnswerFigures {
  readonly kind: 'passkey' | 'fact';
  readonly depth: number;
  readonly found: boolean;
  /** Mean log-probability of the answer's tokens, nats. */
  readonly logProbability: number;
}

/** Speed of decode steps of one token. */
export interface DecodeFigures {
  readonly tokensPerSecond: number;
  /** Share of the time that decisions took. */
  readonly evictionShare: number;
  readonly kvPeakBytes: number;
}

/** One cell on one document. */
export interface CellResult {
  readonly model: string;
  readonly driver: string;
  readonly document: string;
  readonly half: Half;
  readonly contextTokens: number;
  readonly cell: Cell;
  /** Why there are no figures, where there are none. */
  readonly refused?: string;
  readonly continuation?: ContinuationFigures;
  readonly answers?: readonly AnswerFigures[];
  readonly decode?: DecodeFigures;
  readonly scores?: ScoreMeaning;
}

/** The results in a folder. */
export class ResultStore {
  readonly folder: string;

  /** @param folder Made where it is missing. */
  constructor(folder: string) {
    this.folder = folder;
  }

  #folderOf(document: string): string {
    return join(this.folder, document.replaceAll(/[^\w-]/g, '_'));
  }

  /** Where a context of a document is kept; the folder is there. */
  async contextPath(document: string, name: string): Promise<string> {
    await mkdir(this.#folderOf(document), { recursive: true });
    return join(this.#folderOf(document), `${name}.kv`);
  }

  /** Names of the cells of a document that have a result. */
  async done(document: string): Promise<Set<string>> {
    const files = await readdir(this.#folderOf(document)).catch(() => []);
    return new Set(files.map((file) => file.replace(/\.json$/, '')));
  }

  /** Keeps a result. */
  async put(result: CellResult): Promise<void> {
    const folder = this.#folderOf(result.document);
    const path = join(folder, `${cellName(result.cell)}.json`);
    await mkdir(folder, { recursive: true });
    await writeFile(`${path}.part`, JSON.stringify(result));
    await rename(`${path}.part`, path);
  }

  /** All results, in the order of their files' names. */
  async all(): Promise<CellResult[]> {
    const names = await readdir(this.folder, { recursive: true }).catch(() => []);
    const files = names.filter((name) => name.endsWith('.json')).sort();
    const texts = files.map((name) => readFile(join(this.folder, name), 'utf8'));
    // The files are this class's own.
    return (await Promise.all(texts)).map((text) => JSON.parse(text) as CellResult);
  }
}
