/**
 * Finds the WebGPU implementation that a command runs on.
 *
 * In order: the runtime's own `navigator.gpu`; the module that the nearest `package.json` with a
 * field `"vramkit": { "gpu": "MODULE" }` names; Dawn from npm `webgpu`. A gpu module's default
 * export is a function `(options: { adapter?: string }) => Promise<{ gpu, adapter?, driver? }>`. It
 * is how a project brings a driver of its own, for instance a software one for machines without a
 * GPU.
 *
 * An adapter asked for by name goes to the gpu module, because only that knows names.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { createGpu, VramError } from '@vramkit/core';

/** A WebGPU implementation. */
export interface FoundGpu {
  /** Its entry point; keep it reachable while anything made from it is in use. */
  readonly gpu: GPU;
  /** Where it came from, for people. */
  readonly source: string;
  /** Name of the adapter as the gpu module gives it, where it does. */
  readonly adapter: string | undefined;
  /** Driver as the gpu module describes it, where it does. */
  readonly driver: string | undefined;
}

/** A gpu module named by a `package.json`. */
export interface GpuModule {
  /** As written there. */
  readonly specifier: string;
  /** The `package.json` that names it. */
  readonly packageJson: string;
}

function readProperty(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null
    ? (value as Record<string, unknown>)[name] // any own or inherited property may be asked for
    : undefined;
}

function readText(value: unknown, name: string): string | undefined {
  const property = readProperty(value, name);
  return typeof property === 'string' ? property : undefined;
}

/**
 * The gpu module that the nearest `package.json` above `folder` names, if one does.
 * @throws VramError `corrupt-data` where a `package.json` on the way is not JSON.
 */
export function findGpuModule(folder: string): GpuModule | undefined {
  for (let at = folder; ; at = dirname(at)) {
    const packageJson = join(at, 'package.json');
    if (existsSync(packageJson)) {
      let parsed: unknown;
      try {
        parsed = JSON.parse(readFileSync(packageJson, 'utf8'));
      } catch (cause) {
        throw new VramError('corrupt-data', `${packageJson} is not valid JSON`, { cause });
      }
      const specifier = readText(readProperty(parsed, 'vramkit'), 'gpu');
      if (specifier !== undefined) return { specifier, packageJson };
    }
    if (dirname(at) === at) return undefined;
  }
}

/** Address to import: resolved from the `package.json`, or the bare name where that fails. */
function resolveModule({ specifier, packageJson }: GpuModule): string {
  try {
    return pathToFileURL(createRequire(packageJson).resolve(specifier)).href;
  } catch {
    // A package for `import` only has no answer for require; import() resolves it from here.
    return specifier.startsWith('.')
      ? new URL(specifier, pathToFileURL(packageJson)).href
      : specifier;
  }
}

async function openModule(module: GpuModule, adapter: string | undefined): Promise<FoundGpu> {
  const name = `'${module.specifier}', named in ${module.packageJson}`;
  let loaded: unknown;
  try {
    loaded = await import(resolveModule(module));
  } catch (cause) {
    throw new VramError('not-found', `gpu module ${name}, does not load: ${String(cause)}`, {
      context: { specifier: module.specifier, packageJson: module.packageJson },
      cause,
    });
  }
  const open = readProperty(loaded, 'default');
  if (typeof open !== 'function') {
    throw new VramError(
      'invalid-argument',
      `gpu module ${name}, has no function as default export`,
    );
  }
  const result: unknown = await open(adapter === undefined ? {} : { adapter });
  const gpu = readProperty(result, 'gpu');
  if (typeof readProperty(gpu, 'requestAdapter') !== 'function') {
    throw new VramError('invalid-argument', `gpu module ${name}, gave no { gpu }`);
  }
  return {
    gpu: gpu as GPU, // It has requestAdapter(), which is all that is asked of it here.
    source: module.specifier,
    adapter: readText(result, 'adapter'),
    driver: readText(result, 'driver'),
  };
}

/**
 * Finds and opens a WebGPU implementation; see the head of this file for the order.
 * @param options `folder` to start the search for a `package.json` in; `adapter` to ask for.
 * @throws VramError `no-adapter` where there is none; `invalid-argument` where an adapter is asked
 * for and no gpu module takes its name; `not-found` where the gpu module does not load; and what
 * the gpu module throws.
 */
export async function findGpu(options: {
  readonly folder: string;
  readonly adapter?: string | undefined;
}): Promise<FoundGpu> {
  const { adapter } = options;
  const own = readProperty(readProperty(globalThis, 'navigator'), 'gpu');
  const none = { adapter: undefined, driver: undefined };
  if (own !== undefined && adapter === undefined) {
    return { gpu: await createGpu(), source: 'navigator.gpu', ...none };
  }
  const module = findGpuModule(options.folder);
  if (module !== undefined) return openModule(module, adapter);
  if (adapter !== undefined) {
    throw new VramError(
      'invalid-argument',
      `adapter '${adapter}' was asked for by name, but no package.json above ${options.folder} ` +
        'names a gpu module ("vramkit": { "gpu": "MODULE" }) that knows names',
      { context: { adapter, folder: options.folder } },
    );
  }
  return { gpu: await createGpu(), source: 'npm webgpu', ...none };
}
