/** Command line of the study. */
import { resolve } from 'node:path';
import { parseFlags } from '@vramkit/adapter';
import { checkInteger, fail } from '@vramkit/core';
import type { Half } from './documents.js';
import { WHOLE_GRID, type GridOptions, type Part } from './grid.js';

/** What the study was asked to do. */
export interface StudyOptions extends GridOptions {
  readonly models: readonly string[];
  readonly documents: number;
  readonly half: Half | undefined;
  readonly parts: readonly Part[];
  readonly contextTokens: number;
  readonly continuationTokens: number;
  /** Folder of results and pages. */
  readonly folder: string;
  /** Whether only the pages are written, from the results that are there. */
  readonly reportOnly: boolean;
}

/** Text of `--help`. */
export const HELP = `What each KV eviction policy keeps, beside the full cache.

usage: npm run study -- eviction [options]

  --model NAME[,NAME...]      smollm2, tiny-moe, or a path (default: both)
  --documents N               texts to read, half of them unseen (default: 8)
  --half seen|unseen          only that half
  --part NAME[,NAME...]       continuation, scores, retrieval, decode (default: all)
  --policies NAME[,NAME...]   beside the full cache (default: all)
  --budgets N[,N...]          budgets as 1/N of the context (default: 4,8,2,16)
  --block-sizes N[,N...]      tokens of a block (default: 16,8,32)
  --context N                 tokens that are read first (default: 768)
  --continuation N            true tokens that are predicted then (default: 64)
  --out FOLDER                results and pages (default: reports/eviction-study)
  --report                    write the pages from the results that are there, run nothing

Results are kept cell by cell: a study that was stopped goes on where it was.
`;

const PARTS: readonly Part[] = ['continuation', 'scores', 'retrieval', 'decode'];

const FLAGS = {
  model: { type: 'string', default: 'tiny-moe,smollm2' },
  documents: { type: 'string', default: '8' },
  half: { type: 'string' },
  part: { type: 'string', default: PARTS.join(',') },
  policies: { type: 'string', default: WHOLE_GRID.policies.join(',') },
  budgets: { type: 'string', default: '4,8,2,16' },
  'block-sizes': { type: 'string', default: WHOLE_GRID.blockSizes.join(',') },
  context: { type: 'string', default: '768' },
  continuation: { type: 'string', default: '64' },
  out: { type: 'string', default: 'reports/eviction-study' },
  report: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

function oneOf<T extends string>(name: string, value: string, known: readonly T[]): T {
  const found = known.find((each) => each === value);
  return found ?? fail('invalid-argument', `${name} is one of ${known.join(', ')}, not '${value}'`);
}

/**
 * Reads `eviction [options]`.
 * @param folder Where relative paths start.
 * @throws VramError `invalid-argument` naming the option.
 */
export function parseOptions(args: readonly string[], folder: string): StudyOptions | 'help' {
  const { values, positionals } = parseFlags({
    args: [...args],
    options: FLAGS,
    allowPositionals: true,
  });
  if (values.help) return 'help';
  oneOf('the study', positionals[0] ?? '', ['eviction']);
  const list = (text: string): string[] => text.split(',').map((each) => each.trim());
  const numbers = (name: string, text: string): number[] =>
    list(text).map((each) => checkInteger(name, Number(each), 1));
  const number = (name: string, text: string): number => numbers(name, text)[0] ?? 0;
  return {
    models: list(values.model),
    documents: number('--documents', values.documents),
    half:
      values.half === undefined
        ? undefined
        : oneOf<Half>('--half', values.half, ['seen', 'unseen']),
    parts: list(values.part).map((part) => oneOf('--part', part, PARTS)),
    policies: list(values.policies),
    shares: numbers('--budgets', values.budgets).map((n) => 1 / n),
    blockSizes: numbers('--block-sizes', values['block-sizes']),
    contextTokens: number('--context', values.context),
    continuationTokens: number('--continuation', values.continuation),
    folder: resolve(folder, values.out),
    reportOnly: values.report,
  };
}
