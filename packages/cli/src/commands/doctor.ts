/**
 * `vramkit doctor`: which adapter a program gets on this machine, what it can do and how fast it
 * is; with `--store`, the same of a blob store.
 *
 * One run makes one report, a plain record; `--json` prints the record and the text is made of it.
 * Without an adapter the report says what is missing and what to do, and the exit code is 1.
 */
import { createRequire } from 'node:module';
import { cpus, totalmem } from 'node:os';
import { isVramError, openDevice, VramError } from '@vramkit/core';
import type { Command, OptionValues, Terminal } from '../command-line.js';
import { createProgress } from '../progress.js';
import { doctorStore } from './doctor-store.js';
import { adviseNoAdapter } from '../doctor/advice.js';
import { findGpu, type FoundGpu } from '../doctor/find-gpu.js';
import { measureDevice } from '../doctor/measure.js';
import { formatFailure, formatReport } from '../doctor/format.js';
import type {
  AdapterReport,
  DoctorFailure,
  DoctorReport,
  MachineReport,
} from '../doctor/report.js';

function describeMachine(): MachineReport {
  const processors = cpus();
  return {
    platform: process.platform,
    arch: process.arch,
    runtime: `node ${process.versions.node}`,
    processor: processors[0]?.model.trim() ?? 'unknown',
    processorCount: processors.length,
    memoryBytes: totalmem(),
  };
}

/** The graphics interface that WebGPU uses on this platform. */
function nativeBackend(): string {
  const backends: Readonly<Record<string, string>> = { darwin: 'Metal', win32: 'Direct3D 12' };
  return backends[process.platform] ?? 'Vulkan';
}

function webgpuVersion(): string | undefined {
  try {
    const description: unknown = createRequire(import.meta.url)('webgpu/package.json');
    return (description as { version: string }).version; // every npm package has one
  } catch {
    return undefined;
  }
}

function describeAdapter(found: FoundGpu, adapter: GPUAdapter): AdapterReport {
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
  const version = webgpuVersion();
  return {
    name: found.adapter ?? (isFallbackAdapter ? 'software' : 'gpu'),
    driver: found.driver ?? (description || device || 'unnamed'),
    vendor,
    architecture,
    device,
    software: isFallbackAdapter,
    backend: nativeBackend(),
    implementation:
      found.source === 'navigator.gpu'
        ? 'the runtime'
        : `Dawn${version === undefined ? '' : ` (npm webgpu ${version})`}`,
    source: found.source,
  };
}

function readLimits(limits: GPUSupportedLimits): Record<string, number> {
  const names = Object.getOwnPropertyNames(Object.getPrototypeOf(limits));
  const values = limits as unknown as Record<string, unknown>; // its own accessors, by name
  const pairs = names.map((name): [string, unknown] => [name, values[name]]);
  return Object.fromEntries(
    pairs
      .filter((pair): pair is [string, number] => typeof pair[1] === 'number')
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

/**
 * Finds the adapter and measures it.
 * @throws VramError `no-adapter` and what measuring throws.
 */
export async function examine(options: OptionValues, terminal: Terminal): Promise<DoctorReport> {
  const name = options['adapter'];
  const found = await findGpu({
    folder: process.cwd(),
    adapter: typeof name === 'string' ? name : undefined,
  });
  const adapter = await found.gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (adapter === null) {
    throw new VramError('no-adapter', `WebGPU (${found.source}) offers no adapter on this machine`);
  }
  using device = await openDevice({ gpu: found.gpu, label: 'vramkit doctor' });
  const progress = createProgress(terminal);
  try {
    const measured = await measureDevice(device, (what) => progress.step(`Measuring ${what} ...`));
    return {
      ok: true,
      vramkit: terminal.version,
      machine: describeMachine(),
      adapter: describeAdapter(found, adapter),
      limits: readLimits(adapter.limits),
      features: [...adapter.features].sort(),
      measured,
    };
  } finally {
    progress.end();
  }
}

async function run(options: OptionValues, terminal: Terminal): Promise<number> {
  const json = options['json'] === true;
  const { store } = options;
  if (typeof store === 'string') return doctorStore(store, json, terminal);
  const print = (report: DoctorReport | DoctorFailure, text: () => string): void =>
    terminal.out(json ? `${JSON.stringify(report, null, 2)}\n` : text());
  try {
    const report = await examine(options, terminal);
    print(report, () => formatReport(report, terminal.colours));
    return 0;
  } catch (error) {
    const code = isVramError(error) ? error.code : 'unknown';
    const failure: DoctorFailure = {
      ok: false,
      vramkit: terminal.version,
      machine: describeMachine(),
      error: { code, message: error instanceof Error ? error.message : String(error) },
      advice: code === 'no-adapter' ? adviseNoAdapter() : [],
    };
    print(failure, () => formatFailure(failure, terminal.colours));
    return code === 'invalid-argument' ? 2 : 1;
  }
}

/** The command. */
export const doctor: Command = {
  name: 'doctor',
  summary: 'show the adapter, what it can do and how fast it is; or how to get one',
  options: {
    json: { type: 'boolean', summary: 'print the report as JSON' },
    adapter: {
      type: 'string',
      value: 'NAME',
      summary: 'ask the gpu module that package.json names for this adapter',
    },
    store: {
      type: 'string',
      value: 'URL',
      summary:
        'look at a blob store instead: a folder, or file: sqlite: s3: rados: webhdfs: postgres:',
    },
  },
  examples: [
    ['vramkit doctor', 'look at the adapter that programs get here'],
    ['vramkit doctor --json > doctor.json', 'the same for a program to read'],
    ['vramkit doctor --adapter lavapipe', 'look at one of several adapters'],
    ['vramkit doctor --store ./blobs', 'measure a store, and what it suits'],
  ],
  run,
};
