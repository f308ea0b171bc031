/** What the options of `vramkit plan` ask for, checked before any file is opened. */
import { fail } from '@vramkit/core';
import {
  PLACED_KINDS,
  PLACEMENT_TIERS,
  type InferenceWorkload,
  type PerTier,
  type PlacedKind,
  type PlacementBudgets,
} from '@vramkit/offload';
import type { OptionValues } from '../command-line.js';

/** A request to plan. */
export interface PlanRequest {
  readonly model: string;
  readonly workload: InferenceWorkload;
  readonly budgets: PlacementBudgets;
  readonly fix: Partial<Record<PlacedKind, PerTier>>;
  readonly kvBytes: 2 | 4;
  readonly expertsPerToken: number | undefined;
  /** A report of `vramkit doctor --json`. */
  readonly rates: string | undefined;
  readonly storageBytesPerSecond: number | undefined;
  readonly workspaceBytes: number;
  readonly adapter: string | undefined;
  readonly json: boolean;
}

function text(options: OptionValues, name: string): string | undefined {
  const value = options[name];
  return typeof value === 'string' ? value : undefined;
}

function whole(options: OptionValues, name: string): number | undefined {
  const value = text(options, name);
  if (value === undefined) return undefined;
  const number = Number(value);
  if (Number.isSafeInteger(number) && number >= 1) return number;
  return fail('invalid-argument', `--${name} ${value} is no whole number above 0`, { value });
}

/** Bytes of a size such as `1500000`, `512M` or `2GiB`; units are binary. */
function bytes(options: OptionValues, name: string): number | undefined {
  const value = text(options, name);
  if (value === undefined) return undefined;
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(value.trim());
  if (match === null) {
    return fail('invalid-argument', `--${name} '${value}' is no size; write 1500000, 512M or 2G`);
  }
  const power = ['', 'k', 'm', 'g', 't'].indexOf((match[2] ?? '').toLowerCase());
  const count = Math.floor(Number(match[1]) * 1024 ** power);
  if (Number.isSafeInteger(count)) return count;
  return fail('invalid-argument', `--${name} '${value}' is above ${2 ** 53 - 1} B`, { value });
}

/** `weights=50/50/0,kv=100/0/0`: percent on device, host and in storage. */
function parseFix(value: string | undefined): PlanRequest['fix'] {
  const fix: Partial<Record<PlacedKind, PerTier>> = {};
  for (const part of (value ?? '').split(',').filter(Boolean)) {
    const [name = '', shares = ''] = part.split('=');
    const kind = PLACED_KINDS.find((each) => each === name);
    const percents = shares.split('/').map(Number);
    const [device = NaN, host = NaN, storage = NaN] = percents;
    if (kind === undefined || percents.length !== 3 || device + host + storage !== 100) {
      const form = `KIND=DEVICE/HOST/STORAGE in percent, KIND one of ${PLACED_KINDS.join(', ')}`;
      fail('invalid-argument', `--fix '${part}' is not ${form}`, { part });
    }
    fix[kind] = { device: device / 100, host: host / 100, storage: storage / 100 };
  }
  return fix;
}

/**
 * The request that options stand for.
 * @throws VramError `invalid-argument` naming the option.
 */
export function parsePlanRequest(options: OptionValues): PlanRequest {
  const kvDtype = text(options, 'kv-dtype') ?? 'f16';
  if (kvDtype !== 'f16' && kvDtype !== 'f32') {
    fail('invalid-argument', `--kv-dtype is f16 or f32, not '${kvDtype}'`);
  }
  const budgets: Partial<Record<(typeof PLACEMENT_TIERS)[number], number>> = {};
  for (const tier of PLACEMENT_TIERS) {
    const limit = bytes(options, tier === 'device' ? 'gpu-budget' : `${tier}-budget`);
    if (limit !== undefined) budgets[tier] = limit;
  }
  const storage = text(options, 'storage-gbps');
  if (storage !== undefined && !(Number(storage) > 0)) {
    fail('invalid-argument', `--storage-gbps ${storage} is no rate above 0`);
  }
  return {
    model: text(options, 'model') ?? fail('invalid-argument', '--model is required'),
    workload: {
      batch: whole(options, 'batch') ?? 1,
      promptTokens: whole(options, 'prompt') ?? 512,
      outputTokens: whole(options, 'output') ?? 128,
    },
    budgets,
    fix: parseFix(text(options, 'fix')),
    kvBytes: kvDtype === 'f16' ? 2 : 4,
    expertsPerToken: whole(options, 'experts-per-token'),
    rates: text(options, 'rates'),
    storageBytesPerSecond: storage === undefined ? undefined : Number(storage) * 1e9,
    workspaceBytes: bytes(options, 'workspace') ?? 64 * 1024 * 1024,
    adapter: text(options, 'adapter'),
    json: options['json'] === true,
  };
}
