/**
 * Opens the best adapter of this machine through Dawn, with nothing to configure by hand.
 *
 * The Vulkan loader decides which driver Dawn sees when Dawn makes its Vulkan instance. So each
 * attempt first points the loader at the manifests of one adapter by environment variables, and
 * then creates a new Dawn instance; a machine without a loader is lent the one that comes with
 * SwiftShader. Hardware is tried first, and a driver that turns out to be a software one does not
 * count as hardware.
 *
 * Lifetime: the caller must keep the returned `gpu` reachable for as long as anything made from it
 * is used. Once it is collected, Dawn's promises never settle, so that the program ends in silence,
 * or the next call crashes the process. Keeping it does not keep Node from exiting.
 */
import { isMainThread } from 'node:worker_threads';
import { load } from 'koffi';
import type { LibraryHandle } from 'koffi';
import { createGpu as createDawn, isVramError, VramError } from '@vramkit/core';
import { adapterNames, surveyAdapters } from './survey.js';
import type { AdapterName, AdapterReport } from './survey.js';
import { unpackSwiftShader } from './swiftshader.js';

/** Options of {@link createGpu}. */
export interface CreateGpuOptions {
  /** The one adapter to use. Default: the value of `VRAMKIT_ADAPTER`, else the best that opens. */
  readonly adapter?: AdapterName;
}

/** An opened adapter. */
export interface OpenedGpu {
  /** WebGPU's entry point. Keep it reachable while anything made from it is used. */
  readonly gpu: GPU;
  /** Which adapter it is on. */
  readonly adapter: AdapterName;
  /** The driver as it describes itself. */
  readonly driver: string;
}

const loaderName = 'libvulkan.so.1';
/** Keeps the loader loaded for the life of the process, because Dawn uses it for as long. */
const keptLibraries: LibraryHandle[] = [];

/** Makes a Vulkan loader findable by name: the system's own, else the one beside SwiftShader. */
async function ensureLoader(): Promise<void> {
  if (keptLibraries.length > 0) return;
  try {
    keptLibraries.push(load(loaderName));
  } catch {
    // Once a library is loaded by path, the dynamic linker resolves its name to it for everybody.
    const { loader } = await unpackSwiftShader();
    keptLibraries.push(load(loader));
  }
}

/** Points the Vulkan loader at exactly these manifests, which it reads when Dawn starts. */
function offerManifests(manifests: readonly string[]): void {
  const value = manifests.join(':');
  const names = ['VK_DRIVER_FILES', 'VK_ICD_FILENAMES'];
  for (const name of names) process.env[name] = value;
  if (isMainThread) return;
  // In a worker, process.env is a copy that native code does not see.
  const setenv = load(null).func('int setenv(const char *name, const char *value, int over)');
  for (const name of names) setenv(name, value, 1);
}

async function prepareVulkan(report: AdapterReport): Promise<void> {
  await ensureLoader();
  const manifests =
    report.adapter === 'swiftshader' ? [(await unpackSwiftShader()).manifest] : report.manifests;
  if (manifests.length > 0) offerManifests(manifests);
}

/** Opens one adapter, or says in words why it does not open. */
async function openOne(report: AdapterReport): Promise<OpenedGpu | string> {
  const { adapter } = report;
  if (!report.usable) return report.detail;
  if (process.platform === 'linux') await prepareVulkan(report);
  const gpu = await createDawn(process.platform === 'linux' ? ['backend=vulkan'] : []);
  const opened = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (opened === null) return `Dawn found no usable adapter on the driver (${report.detail})`;
  const { description, device, vendor, isFallbackAdapter } = opened.info;
  const driver = description || device || vendor || 'unnamed driver';
  if (adapter === 'gpu' && isFallbackAdapter) return `only a software driver was found: ${driver}`;
  return { gpu, adapter, driver };
}

function wantedAdapter(options: CreateGpuOptions): AdapterName | undefined {
  const wanted = options.adapter ?? (process.env['VRAMKIT_ADAPTER'] || undefined);
  const known = adapterNames.find((name) => name === wanted);
  if (wanted !== undefined && known === undefined) {
    throw new VramError(
      'invalid-argument',
      `unknown adapter '${wanted}'; VRAMKIT_ADAPTER is one of ${adapterNames.join(', ')}`,
      { context: { wanted, known: adapterNames } },
    );
  }
  return known;
}

/**
 * Opens a GPU for vramkit's tools and tests: hardware, else lavapipe, else SwiftShader.
 *
 * On Linux it sets `VK_DRIVER_FILES` and `VK_ICD_FILENAMES` of this process. The first use on a
 * machine unpacks SwiftShader (15 MB) to the user's cache where it is needed.
 *
 * @throws VramError `no-adapter` with one line per adapter that was tried and what it lacks.
 * @throws VramError `invalid-argument` for an unknown name in `VRAMKIT_ADAPTER`.
 */
export async function createGpu(options: CreateGpuOptions = {}): Promise<OpenedGpu> {
  const wanted = wantedAdapter(options);
  const problems: string[] = [];
  for (const report of surveyAdapters()) {
    if (wanted !== undefined && report.adapter !== wanted) continue;
    try {
      const result = await openOne(report);
      if (typeof result !== 'string') return result;
      problems.push(`${report.adapter}: ${result}`);
    } catch (error) {
      problems.push(`${report.adapter}: ${isVramError(error) ? error.message : String(error)}`);
    }
  }
  throw new VramError(
    'no-adapter',
    (wanted === undefined
      ? 'no GPU and no software driver could be opened'
      : `adapter '${wanted}' was asked for and is not usable here`) +
      problems.map((problem) => `\n  ${problem}`).join(''),
    { context: { wanted, problems } },
  );
}
