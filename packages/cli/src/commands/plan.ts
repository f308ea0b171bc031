/**
 * `vramkit plan`: where weights, experts and KV of a model should be for a workload and byte
 * budgets, and how fast it will be; or how many bytes are missing.
 *
 * Rates come from `vramkit doctor`: a report of it, or the same measurement taken now. A copy reads
 * and writes, so kernels that only read are taken to get twice its rate.
 */
import { open, readFile } from 'node:fs/promises';
import { fail, VramError } from '@vramkit/core';
import {
  PLACED_KINDS,
  PLACEMENT_TIERS,
  planPlacement,
  type InferenceMachine,
  type InferenceModel,
  type Placement,
  type PlacementShortfall,
} from '@vramkit/offload';
import type { Command, OptionValues, Terminal } from '../command-line.js';
import type { DoctorReport } from '../doctor/report.js';
import { examine } from './doctor.js';
import { configuredExperts, openModelSource } from './model-source.js';
import { inferenceModel } from './plan-model.js';
import { parsePlanRequest, type PlanRequest } from './plan-options.js';

const SAMPLE_BYTES = 64 * 1024 * 1024;

/** Bytes per second of reading the file once; what the system has in its cache is fast. */
async function measureStorage(path: string): Promise<number> {
  const file = await open(path);
  try {
    const chunk = new Uint8Array(4 * 1024 * 1024);
    const start = performance.now();
    let done = 0;
    while (done < SAMPLE_BYTES) {
      const { bytesRead } = await file.read(chunk, 0, chunk.length, done);
      done += bytesRead;
      if (bytesRead < chunk.length) break;
    }
    return (1e3 * Math.max(1, done)) / (performance.now() - start);
  } finally {
    await file.close();
  }
}

async function readReport(path: string): Promise<DoctorReport> {
  const text = await readFile(path, 'utf8').catch((cause: unknown) => {
    throw new VramError('not-found', `${path} cannot be read`, { cause });
  });
  let report: Partial<DoctorReport>;
  try {
    // What is used of it is checked below; null has nothing.
    report = (JSON.parse(text) ?? {}) as Partial<DoctorReport>;
  } catch (cause) {
    throw new VramError('corrupt-data', `${path} is no report of 'vramkit doctor --json'`, {
      cause,
    });
  }
  const { ok, measured, adapter } = report;
  const figures = [measured?.copy, measured?.matmul, measured?.download, measured?.uploadMapped];
  if (ok !== true || adapter === undefined || !figures.every((each) => (each?.median ?? 0) > 0)) {
    fail('corrupt-data', `${path} is no report of 'vramkit doctor --json' on a working adapter`);
  }
  return report as DoctorReport; // what is used of it was checked above
}

/** Rates of the machine, those of storage by a file of the model. */
async function machineOf(
  request: PlanRequest,
  file: string,
  terminal: Terminal,
): Promise<InferenceMachine> {
  const report =
    request.rates === undefined
      ? await examine({ adapter: request.adapter }, terminal)
      : await readReport(request.rates);
  const { copy, matmul, uploadMapped, download } = report.measured;
  return {
    name: `vramkit doctor on ${report.adapter.driver}`,
    deviceOperationsPerSecond: matmul.median * 1e9,
    deviceBytesPerSecond: 2 * copy.median * 1e9,
    uploadBytesPerSecond: uploadMapped.median * 1e9,
    downloadBytesPerSecond: download.median * 1e9,
    storageBytesPerSecond: request.storageBytesPerSecond ?? (await measureStorage(file)),
    queue: 'single',
  };
}

function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];
  let value = bytes;
  let at = 0;
  for (; value >= 1024 && at < units.length - 1; at++) value /= 1024;
  return `${value.toFixed(at === 0 ? 0 : 2)} ${units[at]}`;
}

function formatPlan(plan: Placement, model: InferenceModel): string {
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`.padStart(9);
  const unitNames = { weights: 'layers', experts: 'experts', kv: 'blocks of KV' };
  const rows = PLACED_KINDS.filter((kind) => kind !== 'experts' || model.experts > 0).map(
    (kind) => {
      const cells = PLACEMENT_TIERS.map((tier) => percent(plan.shares[kind][tier]));
      const units = PLACEMENT_TIERS.map((tier) => plan.units[kind][tier]).join(' / ');
      return `${kind.padEnd(8)}${cells.join('')}   ${units} ${unitNames[kind]}\n`;
    },
  );
  const bytes = PLACEMENT_TIERS.map((tier) => size(plan.bytes[tier]).padStart(12)).join(' ');
  const { predicted: at } = plan;
  const rate = (value: number): string => value.toPrecision(3);
  return (
    `${' '.repeat(8)}${PLACEMENT_TIERS.map((tier) => tier.padStart(9)).join('')}\n` +
    `${rows.join('')}bytes ${bytes}   streaming of layers: ${plan.streaming}\n\n` +
    `prefill ${rate(at.prefillTokensPerSecond)} tokens/s, waits for ${at.prefillBound}\n` +
    `decode  ${rate(at.decodeTokensPerSecond)} tokens/s, waits for ${at.decodeBound}\n` +
    `whole   ${rate(at.tokensPerSecond)} tokens/s, ${rate(at.totalMs / 1e3)} s; no split of ` +
    `these bytes can be below ${rate(plan.lowerBoundMs / 1e3)} s\n` +
    `found by ${plan.found}; rates: ${plan.measurement}\n`
  );
}

function formatShortfall(
  infeasible: readonly PlacementShortfall[],
  workspaceBytes: number,
): string {
  const parts = infeasible.map(({ tier, missingBytes }) => {
    const lacks = `${tier} lacks ${missingBytes} B (${size(missingBytes)})`;
    if (tier !== 'device') return `${lacks}; raise --${tier}-budget`;
    const workspace = `--workspace takes ${size(workspaceBytes)} of the device`;
    return `${lacks}; raise --gpu-budget${workspaceBytes === 0 ? '' : `; ${workspace}`}`;
  });
  return `No plan fits: ${parts.join('; ')}.\n`;
}

async function run(options: OptionValues, terminal: Terminal): Promise<number> {
  const request = parsePlanRequest(options);
  const source = await openModelSource(request.model);
  let model: InferenceModel;
  try {
    const { expertsPerToken, kvBytes, workspaceBytes } = request;
    const isGguf = source.format === 'gguf';
    const stated = isGguf ? source.expertsPerToken : await configuredExperts(request.model);
    const how = { kvBytes, expertsPerToken, statedExperts: stated };
    model = { ...inferenceModel(source, how), workspaceBytes };
    if (model.experts === 0 && request.fix.experts !== undefined) {
      fail('invalid-argument', `--fix experts=...: ${request.model} has no experts`);
    }
  } finally {
    await source.close();
  }
  const machine = await machineOf(request, source.files.at(-1) ?? request.model, terminal);
  const { workload, budgets, fix } = request;
  const plan = planPlacement(model, { workload, machine, budgets, fix });
  const isPlan = !('infeasible' in plan);
  if (request.json) {
    terminal.out(`${JSON.stringify({ model, workload, budgets, machine, plan }, null, 2)}\n`);
  } else if (isPlan) terminal.out(formatPlan(plan, model));
  else terminal.err(formatShortfall(plan.infeasible, request.workspaceBytes));
  return isPlan ? 0 : 1;
}

/** The command. */
export const plan: Command = {
  name: 'plan',
  summary: 'say where weights, experts and KV of a model go for byte budgets, and how fast it is',
  options: {
    model: { type: 'string', value: 'PATH', summary: 'GGUF or safetensors file, or a folder' },
    'gpu-budget': {
      type: 'string',
      value: 'SIZE',
      summary: 'bytes of the device, such as 6G (default: no limit)',
    },
    'host-budget': {
      type: 'string',
      value: 'SIZE',
      summary: 'bytes of the host; 0 forbids it (default: no limit)',
    },
    'storage-budget': {
      type: 'string',
      value: 'SIZE',
      summary: 'bytes of storage; 0 forbids it (default: no limit)',
    },
    batch: { type: 'string', value: 'N', summary: 'sequences that decode together (default 1)' },
    prompt: { type: 'string', value: 'N', summary: 'tokens of a prompt (default 512)' },
    output: { type: 'string', value: 'N', summary: 'tokens given for a prompt (default 128)' },
    fix: {
      type: 'string',
      value: 'KIND=D/H/S,...',
      summary: 'percent on device, host and in storage that is given, not sought',
    },
    'kv-dtype': { type: 'string', value: 'TYPE', summary: 'f16 or f32 (default f16)' },
    'experts-per-token': { type: 'string', value: 'N', summary: 'where the file does not say' },
    workspace: {
      type: 'string',
      value: 'SIZE',
      summary: 'bytes of the device for activations, within its budget (default 64M)',
    },
    rates: {
      type: 'string',
      value: 'FILE',
      summary: "a report of 'vramkit doctor --json' (default: measured now)",
    },
    'storage-gbps': { type: 'string', value: 'N', summary: 'GB/s of storage (default: measured)' },
    adapter: { type: 'string', value: 'NAME', summary: 'adapter to measure, as for doctor' },
    json: { type: 'boolean', summary: 'print model, rates and plan as JSON' },
  },
  examples: [
    ['vramkit plan --model m.gguf --gpu-budget 4G --host-budget 16G', 'split a model'],
    ['vramkit plan --model m.gguf --rates doctor.json --fix kv=0/100/0', 'K and V on the host'],
  ],
  run,
};
