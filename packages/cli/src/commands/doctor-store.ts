/**
 * `vramkit doctor --store URL`: what a blob store guarantees, how fast it is from here, and which
 * workloads it suits.
 *
 * The address may hold a password: what is printed is the store's own name, which holds none.
 */
import { isVramError } from '@vramkit/core';
import { judgeStore, type StoreCapabilities, type StoreVerdict } from '@vramkit/storage';
import { openStore } from '@vramkit/storage/store-url';
import type { Terminal } from '../command-line.js';
import { formatBytes, formatNumber } from '../doctor/format.js';
import { createProgress } from '../progress.js';
import { loadDriver } from './store.js';
import { measureStore, type StoreMeasurements } from '../doctor/measure-store.js';

/** One run, as `--json` prints it. */
export interface StoreReport {
  readonly ok: true;
  readonly vramkit: string;
  /** The store's name for itself. */
  readonly store: string;
  readonly capabilities: StoreCapabilities;
  readonly measured: StoreMeasurements;
  readonly workloads: readonly StoreVerdict[];
}

function formatCapabilities(capabilities: StoreCapabilities): string {
  const { createIfAbsent, compareAndSwap, nestedKeys, durability, probed } = capabilities;
  const size = (bytes: number): string => (bytes >= 2 ** 50 ? 'any' : formatBytes(bytes));
  const rows: [string, string, keyof StoreCapabilities][] = [
    ['create if absent', createIfAbsent ? 'yes' : 'no', 'createIfAbsent'],
    ['compare and swap', compareAndSwap ? 'yes' : 'no', 'compareAndSwap'],
    ['body under a condition', size(capabilities.maxConditionalBytes), 'maxConditionalBytes'],
    ['largest blob', size(capabilities.maxBlobBytes), 'maxBlobBytes'],
    ['moves well in', size(capabilities.preferredChunkBytes), 'preferredChunkBytes'],
    ["'a' beside 'a/b'", nestedKeys ? 'yes' : 'no', 'nestedKeys'],
    ['outlives', DURABILITY[durability], 'durability'],
  ];
  return rows
    .map(([title, value, name]) => {
      const note = probed.includes(name) ? '  (asked)' : '';
      return `  ${title.padEnd(24)}${value}${note}\n`;
    })
    .join('');
}

const DURABILITY = {
  none: 'nothing',
  synced: 'a crash of this machine: puts are synced',
  service: 'what the service is set up to outlive',
} as const;

function formatMeasured({ sizes, getsPerSecond, listedPerSecond }: StoreMeasurements): string {
  const cell = (value: number): string => formatNumber(value).padStart(9);
  const rows = sizes.map(
    ({ sizeBytes, put, get }) =>
      `  ${formatBytes(sizeBytes).padEnd(8)}${cell(put.medianMs)}${cell(put.maxMs)}` +
      `${cell(put.mibPerSecond)}  ${cell(get.medianMs)}${cell(get.maxMs)}` +
      `${cell(get.mibPerSecond)}\n`,
  );
  return (
    `${' '.repeat(10)}   put ms  slowest    MiB/s     get ms  slowest    MiB/s\n${rows.join('')}` +
    `  ${formatNumber(getsPerSecond)} small gets/s, 16 in flight; ` +
    `${formatNumber(listedPerSecond)} blobs listed/s\n`
  );
}

/** The report as text. */
export function formatStoreReport(report: StoreReport): string {
  const verdicts = report.workloads.map(
    ({ workload, suits, reasons }) =>
      `  ${workload.padEnd(12)}${suits ? 'yes' : 'no '}  ${reasons.join('; ')}\n`,
  );
  const { vramkit, store, capabilities } = report;
  return (
    `vramkit ${vramkit} doctor: ${store}\n${formatCapabilities(capabilities)}` +
    `\nMeasured, one call at a time\n${formatMeasured(report.measured)}` +
    `\nSuits\n${verdicts.join('')}`
  );
}

const SECOND_MS = 500;

/**
 * A signal that fires at Ctrl-C, so that what was put is deleted; pressed again, it ends the
 * process at once. What comes within half a second is one Ctrl-C that a parent process passed on.
 */
function interruption(): Disposable & { readonly signal: AbortSignal } {
  const controller = new AbortController();
  let atMs: number | undefined;
  const stop = (): void => {
    const now = performance.now();
    if (now - (atMs ??= now) > SECOND_MS) process.exit(INTERRUPTED);
    controller.abort();
  };
  const names = ['SIGINT', 'SIGTERM'] as const;
  for (const name of names) process.on(name, stop);
  return {
    signal: controller.signal,
    [Symbol.dispose]() {
      for (const name of names) process.off(name, stop);
    },
  };
}

/** What shells say of a process that Ctrl-C ended. */
const INTERRUPTED = 130;

/**
 * Runs it; gives the exit code: 1 where the store fails, 2 for an address that names none, 130
 * after Ctrl-C.
 */
export async function doctorStore(
  address: string,
  json: boolean,
  terminal: Terminal,
): Promise<number> {
  const progress = createProgress(terminal);
  try {
    using interrupted = interruption();
    await using store = await openStore(address, { load: loadDriver, random: Math.random });
    const report: StoreReport = {
      ok: true,
      vramkit: terminal.version,
      store: store.name,
      capabilities: store.capabilities,
      measured: await measureStore(
        store,
        (what) => progress.step(`Measuring ${what} ...`),
        interrupted.signal,
      ),
      workloads: judgeStore(store.capabilities),
    };
    progress.end();
    terminal.out(json ? `${JSON.stringify(report, null, 2)}\n` : formatStoreReport(report));
    return 0;
  } catch (error) {
    progress.end();
    if (!isVramError(error)) throw error;
    const { code, message } = error;
    const failure = { ok: false, vramkit: terminal.version, error: { code, message } };
    terminal.out(json ? `${JSON.stringify(failure, null, 2)}\n` : `${message}\n`);
    if (code === 'aborted') return INTERRUPTED;
    return code === 'invalid-argument' ? 2 : 1;
  }
}
