/** Command line of the demo. */
import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { parseFlags, parseWhole } from '@vramkit/adapter';
import { fail, VramError } from '@vramkit/core';
import { KV_POLICY_NAMES } from '@vramkit/eviction';
import {
  EXPERT_FLAGS,
  EXPERT_HELP,
  parseBytes,
  parseExpertCaching,
  type ExpertCaching,
} from '@vramkit/example-runtime';

/** What the demo was asked to do. */
export interface DemoOptions {
  /** Path or name; chosen by measurement where absent. */
  readonly model: string | undefined;
  readonly promptFile: string | undefined;
  readonly question: string | undefined;
  readonly policies: readonly string[];
  /** Default: a quarter of the prompt. */
  readonly kvBudgetTokens: number | undefined;
  readonly gpuBudgetBytes: number | undefined;
  /** Default: all experts are resident. */
  readonly experts: ExpertCaching | undefined;
  /** Name of the replacement policy, for the report. */
  readonly expertPolicy: string;
  /** Default: 48, or 96 for a model of bytes. */
  readonly maxTokens: number | undefined;
  readonly blockSize: number;
  readonly kvDtype: 'f16' | 'f32';
  readonly jsonFile: string | undefined;
  readonly reportFile: string;
}

/** Text of `--help`. */
export const HELP = `One long prompt answered out of a paged KV cache, once per policy.

usage: npm run demo -- [options]

  --model PATH|NAME         a GGUF file, a folder with safetensors, 'smollm2' or 'tiny-moe'
                            (default: chosen by measuring this machine)
  --prompt-file FILE        text to read (default: a chapter that comes with the demo)
  --question TEXT           what to ask about it
  --policy NAME[,NAME...]   ${KV_POLICY_NAMES.join(', ')} (default: full,pagedEviction,streamingLlm)
  --kv-budget-tokens N      tokens that evicting policies keep (default: a quarter of the prompt)
  --gpu-budget BYTES        hard limit on device memory; 512M and 2G are understood. Layers that
                            do not fit beside KV and activations are streamed from the host
${EXPERT_HELP}\
  --max-tokens N            length of each answer (default: 48; 96 for a model of bytes)
  --block-size N            tokens per block (default: 16)
  --kv-dtype f16|f32        element type of K and V (default: f16)
  --json FILE               writes every figure as JSON
  --report FILE             where the page goes (default: report.html)

examples:
  npm run demo -- --model smollm2 --policy full,pagedEviction --kv-budget-tokens 256
  npm run demo -- --model tiny-moe --gpu-budget 64M --json figures.json
  npm run demo -- --model tiny-moe --expert-budget 3M --expert-policy s3Fifo --expert-prefetch
`;

const FLAGS = {
  model: { type: 'string' },
  'prompt-file': { type: 'string' },
  question: { type: 'string' },
  policy: { type: 'string', default: 'full,pagedEviction,streamingLlm' },
  'kv-budget-tokens': { type: 'string' },
  'gpu-budget': { type: 'string' },
  'max-tokens': { type: 'string' },
  'block-size': { type: 'string', default: '16' },
  'kv-dtype': { type: 'string', default: 'f16' },
  ...EXPERT_FLAGS,
  json: { type: 'string' },
  report: { type: 'string', default: 'report.html' },
  help: { type: 'boolean', default: false },
} as const;

/**
 * The options, or 'help'.
 * @throws VramError `invalid-argument` naming the option.
 */
export function parseOptions(args: readonly string[]): DemoOptions | 'help' {
  const { values } = parseFlags({ args: [...args], options: FLAGS });
  if (values.help) return 'help';
  const dtype = values['kv-dtype'];
  if (dtype !== 'f16' && dtype !== 'f32') {
    return fail('invalid-argument', `--kv-dtype is f16 or f32, not '${dtype}'`);
  }
  const whole = (name: 'kv-budget-tokens' | 'max-tokens' | 'block-size'): number =>
    parseWhole(`--${name}`, values[name] ?? '', { least: 1, most: 2 ** 31 - 1 });
  const gpuBudget = values['gpu-budget'];
  return {
    model: values.model,
    promptFile: values['prompt-file'],
    question: values.question,
    policies: values.policy.split(',').map((name) => name.trim()),
    kvBudgetTokens:
      values['kv-budget-tokens'] === undefined ? undefined : whole('kv-budget-tokens'),
    gpuBudgetBytes: gpuBudget === undefined ? undefined : parseBytes(gpuBudget),
    experts: parseExpertCaching(values),
    expertPolicy: values['expert-policy'] ?? 'lru',
    maxTokens: values['max-tokens'] === undefined ? undefined : whole('max-tokens'),
    blockSize: whole('block-size'),
    kvDtype: dtype,
    jsonFile: values.json,
    reportFile: values.report,
  };
}

/**
 * Finds out before the run whether its results can be written.
 * @throws VramError `invalid-argument` naming the option and the file.
 */
export async function checkOutputs({
  jsonFile,
  reportFile,
}: Pick<DemoOptions, 'jsonFile' | 'reportFile'>): Promise<void> {
  for (const [option, path] of [
    ['--json', jsonFile],
    ['--report', reportFile],
  ] as const) {
    if (path === undefined) continue;
    const found = await stat(path).catch(() => undefined);
    const needed = found === undefined ? dirname(path) : path;
    const refuse = (cause?: unknown): never => {
      throw new VramError('invalid-argument', `${option} '${path}' cannot be written`, { cause });
    };
    if (found?.isDirectory() === true) refuse();
    await access(needed, constants.W_OK).catch(refuse);
  }
}
