/** Command line of the combined pipeline. */
import { join, resolve } from 'node:path';
import { parseFlags } from '@vramkit/adapter';
import { assertArgument, checkInteger, fail } from '@vramkit/core';
import { parseBytes } from '@vramkit/example-runtime';
import type { PackTarget } from './pack-stage.js';

/** What the pipeline was asked to do. */
export interface CombinedOptions {
  readonly gpuBudgetBytes: number;
  readonly steps: number;
  /** Address of a store that outlives the process. */
  readonly store: string;
  readonly target: PackTarget;
  /** Default: half of what the packed experts take. */
  readonly expertBytes: number | undefined;
  readonly folder: string;
  readonly quick: boolean;
}

/** Text of `--help`. */
export const HELP = `One model's life under one limit of device memory: trained on with most of
its optimizer's state on the host, checkpointed, packed with a width for each expert, served, and
served again by another process.

usage: npm run combined -- [options]

  --gpu-budget BYTES     hard limit on device memory, through all stages (default: 96MiB)
  --steps N              steps of training, 2 or more, behind those that the store has (default: 40,
                         quick: 4)
  --store URL            a folder, or an address such as s3://bucket/prefix?endpoint=...,
                         rados://pool or webhdfs://user@host:9870/folder (default: OUT/store)
  --bits B               true bits for each weight of the experts, scales included, from 2.5 to 8.5
                         (default: 3)
  --bytes N              bytes of the whole packed file, in place of --bits
  --expert-budget BYTES  device memory for experts when serving (default: half of them)
  --out FOLDER           report.html and report.json (default: reports/combined)
  --quick                few steps and short texts

examples:
  npm run combined -- --quick
  npm run combined -- --gpu-budget 96MiB --steps 100 --bytes 1500000 --store ./store
`;

const FLAGS = {
  'gpu-budget': { type: 'string', default: '96MiB' },
  steps: { type: 'string' },
  store: { type: 'string' },
  bits: { type: 'string' },
  bytes: { type: 'string' },
  'expert-budget': { type: 'string' },
  out: { type: 'string', default: 'reports/combined' },
  quick: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
} as const;

function parseTarget(bits: string | undefined, bytes: string | undefined): PackTarget {
  assertArgument(bits === undefined || bytes === undefined, '--bits and --bytes exclude another');
  if (bytes !== undefined) return { fileBytes: parseBytes(bytes) };
  const count = Number(bits ?? 3);
  assertArgument(count >= 2.5 && count <= 8.5, `--bits ${bits} is not between 2.5 and 8.5`);
  return { bits: count };
}

/**
 * Reads the options.
 * @param folder Where relative paths start.
 * @throws VramError `invalid-argument` naming the option.
 */
export function parseOptions(args: readonly string[], folder: string): CombinedOptions | 'help' {
  const { values } = parseFlags({ args: [...args], options: FLAGS });
  if (values.help) return 'help';
  const { quick, store, bits, bytes, 'expert-budget': expertBytes } = values;
  const out = resolve(folder, values.out);
  if (store?.startsWith('memory:') === true) {
    fail('invalid-argument', `--store ${store} does not outlive the process that made it`);
  }
  const isAddress = store !== undefined && /^[a-z][a-z0-9+.-]+:/i.test(store);
  const place = store === undefined ? join(out, 'store') : resolve(folder, store);
  return {
    gpuBudgetBytes: parseBytes(values['gpu-budget']),
    steps: checkInteger('--steps', Number(values.steps ?? (quick ? 4 : 40)), 2, 100_000),
    store: isAddress ? store : place,
    target: parseTarget(bits, bytes),
    expertBytes: expertBytes === undefined ? undefined : parseBytes(expertBytes),
    folder: out,
    quick,
  };
}
