/**
 * What the options of `vramkit pack` ask for, checked before any file is opened.
 */
import { availableParallelism } from 'node:os';
import { fail, VramError } from '@vramkit/core';
import {
  hqq,
  optRtn,
  ruleFor,
  rtn,
  type CodeBits,
  type FactorFormat,
  type GroupChoice,
  type Quantizer,
  type WidthRule,
} from '@vramkit/packer';
import type { OptionValues } from '../command-line.js';

/** A request to pack. */
export interface PackRequest {
  readonly model: string;
  readonly out: string;
  readonly quantizer: Quantizer;
  readonly groupSize: GroupChoice;
  readonly factors: FactorFormat;
  /** Default width of tensors that no rule names. */
  readonly bits: CodeBits;
  /** Most bits a packed weight, everything counted; widths are then chosen by measured error. */
  readonly targetBits: number | undefined;
  /** Widths by name, glob or /regular expression/. */
  readonly rules: readonly WidthRule[];
  /** Names and globs of tensors that stay as they are. */
  readonly keep: readonly string[];
  /** File of an importance matrix. */
  readonly imatrix: string | undefined;
  /** File of errors that were measured before, and that those of this run go to. */
  readonly scores: string | undefined;
  /** Threads that quantize. */
  readonly workers: number;
  readonly dryRun: boolean;
  readonly resume: boolean;
  readonly requantize: boolean;
}

/** Tensors that lose the most for the bytes they save. */
const KEPT = [
  '*norm*',
  '*embed*',
  '*embd*',
  '*lm_head*',
  'output.weight',
  '*block_sparse_moe.gate.weight',
  '*mlp.gate.weight',
  '*ffn_gate_inp*',
];

const QUANTIZERS: Readonly<Record<string, () => Quantizer>> = {
  rtn: () => rtn(),
  'rtn-symmetric': () => rtn({ convention: 'symmetric-full' }),
  optRtn: () => optRtn(),
  'optRtn-symmetric': () => optRtn({ convention: 'symmetric' }),
  hqq: () => hqq(),
};

function text(options: OptionValues, name: string): string | undefined {
  const value = options[name];
  return typeof value === 'string' ? value : undefined;
}

function required(options: OptionValues, name: string): string {
  return text(options, name) ?? fail('invalid-argument', `--${name} is required`, { option: name });
}

/** A width that matrices have. @throws VramError `invalid-argument`. */
function widthOf(value: string): CodeBits {
  const bits = Number(value);
  if (bits === 2 || bits === 3 || bits === 4 || bits === 8) return bits;
  return fail('invalid-argument', `${value} bits: widths are 2, 3, 4 and 8`, { value });
}

/** Beyond these, reading and writing are what a packing waits for. */
const MOST_WORKERS = 8;

function workersOf(value: string | undefined): number {
  if (value === undefined) return Math.min(availableParallelism(), MOST_WORKERS);
  if (/^\d{1,3}$/.test(value)) return Number(value);
  return fail('invalid-argument', `--workers ${value} is no number of threads`, { value });
}

function parseRule(rule: string): WidthRule {
  const at = rule.lastIndexOf('=');
  const pattern = rule.slice(0, at);
  if (at < 1) return fail('invalid-argument', `the rule '${rule}' is not PATTERN=BITS`, { rule });
  const expression = /^\/(.*)\/$/.exec(pattern)?.[1];
  const bits = widthOf(rule.slice(at + 1));
  if (expression === undefined) return { match: pattern, bits };
  try {
    return { match: new RegExp(expression), bits };
  } catch (cause) {
    const message = `the rule '${rule}' has no valid regular expression`;
    throw new VramError('invalid-argument', message, { cause, context: { rule } });
  }
}

/**
 * The request that options stand for.
 * @throws VramError `invalid-argument` naming the option.
 */
export function parsePackRequest(options: OptionValues): PackRequest {
  const name = text(options, 'quantizer') ?? 'optRtn';
  const quantizer = Object.hasOwn(QUANTIZERS, name) ? QUANTIZERS[name]?.() : undefined;
  if (quantizer === undefined) {
    const known = Object.keys(QUANTIZERS).join(', ');
    fail('invalid-argument', `no quantizer '${name}': ${known}`, { quantizer: name });
  }
  const group = text(options, 'group') ?? (text(options, 'factors') === 'compact' ? '32' : '64');
  const groupSize = ([16, 32, 64, 128, 'row'] as const).find((size) => String(size) === group);
  if (groupSize === undefined) {
    fail('invalid-argument', `groups of ${group}: 16, 32, 64, 128 or row`, { group });
  }
  const factors = text(options, 'factors') ?? 'f16';
  if (factors !== 'f16' && factors !== 'compact') {
    fail('invalid-argument', `factors '${factors}': f16 or compact`, { factors });
  }
  const target = text(options, 'target-bits');
  const targetBits = target === undefined ? undefined : Number(target);
  if (targetBits !== undefined && !(targetBits > 0 && targetBits <= 16)) {
    fail('invalid-argument', `--target-bits ${target} is no number of bits`, { target });
  }
  const bits = text(options, 'bits');
  if (bits !== undefined && target !== undefined) {
    fail('invalid-argument', '--bits and --target-bits both choose widths; give one of them');
  }
  const scores = text(options, 'scores');
  if (scores !== undefined && target === undefined) {
    fail('invalid-argument', '--scores keeps what --target-bits measures; give that as well');
  }
  const imatrix = text(options, 'imatrix');
  if (imatrix !== undefined && targetBits === undefined && !name.startsWith('optRtn')) {
    fail('invalid-argument', `--imatrix changes nothing for ${name} without --target-bits`);
  }
  const list = (value: string | undefined): string[] => (value ?? '').split(',').filter(Boolean);
  return {
    model: required(options, 'model'),
    out: required(options, 'out'),
    quantizer,
    groupSize,
    factors,
    bits: widthOf(bits ?? '4'),
    targetBits,
    rules: list(text(options, 'rules')).map(parseRule),
    keep: text(options, 'keep') === undefined ? KEPT : list(text(options, 'keep')),
    imatrix,
    scores,
    workers: workersOf(text(options, 'workers')),
    dryRun: options['dry-run'] === true,
    resume: options['resume'] === true,
    requantize: options['requantize'] === true,
  };
}

/** Whether a tensor stays as it is. A rule of its own goes before the list. */
export function isKept(request: PackRequest, name: string, shape: readonly number[]): boolean {
  if (shape.length !== 2) return true;
  if (ruleFor(request.rules, name) !== undefined) return false;
  return (
    ruleFor(
      request.keep.map((match) => ({ match })),
      name,
    ) !== undefined
  );
}
