/**
 * Windows of tokens: of the evaluation text of tiny-moe and of eight documents, half of them
 * unseen; and the windows that allocations may be calibrated with, which no loss is judged on.
 *
 * Calibration reads the evaluation text and the seen documents only, at other places.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { workspaceFolder } from '@vramkit/bench';
import type { Tokenizer } from '@vramkit/example-runtime';
import type { StudyDocument } from '../documents.js';

/** Where a window comes from. */
export type TextPart = 'evaluation text' | 'seen documents' | 'unseen documents';

/** Tokens to judge by. */
export interface TextWindow {
  readonly part: TextPart;
  /** Name of the text. */
  readonly text: string;
  readonly ids: Uint32Array;
}

/** What a model reads. */
export interface StudyTexts {
  readonly evaluation: readonly TextWindow[];
  readonly calibration: readonly Uint32Array[];
}

/** How many tokens are read. */
export interface TextSizes {
  /** Tokens of a window, the first of which is given. */
  readonly tokens: number;
  /** Windows of the evaluation text. */
  readonly textWindows: number;
  /** Windows of each document. */
  readonly documentWindows: number;
  /** Calibration windows at each place, one after the other. Default: 1. */
  readonly calibrationWindows?: number;
}

/** Splits the texts into windows. */
export async function studyTexts(
  tokenizer: Tokenizer,
  documents: readonly StudyDocument[],
  sizes: TextSizes,
): Promise<StudyTexts> {
  const { tokens, textWindows, documentWindows, calibrationWindows = 1 } = sizes;
  const calibrationTokens = calibrationWindows * tokens;
  const evalText = await readFile(join(workspaceFolder, 'tools/models/tiny-moe/eval.txt'), 'utf8');
  const evaluation: TextWindow[] = [];
  const calibration: Uint32Array[] = [];
  const calibrate = (ids: Uint32Array, first: number): void => {
    for (let i = 0; i < calibrationWindows; i++) {
      calibration.push(ids.slice(first + i * tokens, first + (i + 1) * tokens));
    }
  };
  // Places of both kinds alternate, so that both see all of its parts.
  const all = tokenizer.encode(evalText, { addSpecial: false });
  const step = Math.floor(all.length / (2 * textWindows));
  if (calibrationTokens > step) throw new RangeError('calibration would read what is judged');
  for (let i = 0; i < textWindows; i++) {
    const start = 2 * i * step;
    calibrate(all, start);
    const ids = all.slice(start + step, start + step + tokens);
    evaluation.push({ part: 'evaluation text', text: 'eval.txt', ids });
  }
  for (const { name, half, text } of documents) {
    // Enough characters for the windows, whatever the tokenizer.
    const head = text.slice(0, 12 * (tokens * documentWindows + calibrationTokens));
    const ids = tokenizer.encode(head, { addSpecial: false });
    for (let i = 0; i < documentWindows; i++) {
      const window = ids.slice(i * tokens, (i + 1) * tokens);
      evaluation.push({ part: `${half} documents`, text: name, ids: window });
    }
    const next = documentWindows * tokens;
    if (half === 'seen') calibrate(ids, next);
  }
  return { evaluation, calibration };
}
