/**
 * Dawn in Node: the only file that imports `webgpu`, which is an optional peer dependency.
 *
 * The object that Dawn's `create()` returns must stay reachable for as long as a device lives and
 * until every promise of Dawn has settled: once it is collected, what is pending never settles, or
 * crashes the process. The device holds it, and lets it go when it is disposed and Dawn has
 * answered all, so that nothing of Dawn keeps a process alive that has no device left.
 */
import { VramError } from './errors.js';

/** What this module needs of npm `webgpu`. */
interface DawnModule {
  create(flags: string[]): GPU;
}

/**
 * The `GPU` object to open adapters on: the page's own `navigator.gpu`, else Dawn from npm
 * `webgpu`.
 * @param flags Dawn's own flags, such as `backend=vulkan`; ignored in a browser.
 * @throws VramError `no-adapter` where there is neither.
 */
export async function createGpu(flags: readonly string[] = []): Promise<GPU> {
  // Node's typings have no navigator.gpu; browsers may lack it too.
  const page = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (page !== undefined && flags.length === 0) return page;
  try {
    // A variable keeps browser bundlers from resolving a package that only Node has.
    const specifier = 'webgpu';
    const dawn = (await import(/* @vite-ignore */ specifier)) as DawnModule;
    return dawn.create([...flags]);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new VramError(
      'no-adapter',
      "there is no navigator.gpu and npm 'webgpu' cannot be loaded; install it, or pass { gpu }: " +
        why,
      { cause },
    );
  }
}

/** Keeps `gpu` reachable until Dawn has answered all of `promises`. */
export function holdUntilSettled(
  gpu: GPU | undefined,
  promises: readonly Promise<unknown>[],
): void {
  void Promise.allSettled(promises).then(() => gpu);
}
