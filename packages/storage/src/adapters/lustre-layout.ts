/**
 * Layouts of files on Lustre: over how many object servers, in stripes of which size.
 *
 * A layout is a list of components, one for the whole file or several for its extents (a
 * progressive file layout). It is given to a folder, whose new files inherit it, through the
 * command `lfs` of the Lustre client, without a shell; and read back from there, because what was
 * asked for is not always what there is (fewer servers, a quota of a pool).
 *
 * Many sites set a default that they know to be good; so nothing is set unless it is asked for.
 * Never run on Lustre: the texts that are parsed are those that its documentation and its users
 * show. Sources: the manual pages lfs-setstripe(1) and lfs-getstripe(1).
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { assertArgument, checkInteger, fail, VramError } from '@vramkit/core';
import { codeOf } from '../store-error.js';

/** The layout of one extent of a file. */
export interface LustreComponent {
  /** Where the extent ends; the next one begins there. Default: at the end of the file. */
  readonly endBytes?: number;
  /** Object servers; -1 for all. */
  readonly stripeCount: number;
  /** A multiple of 64 KiB. */
  readonly stripeBytes: number;
}

/** Components in order; the last one has no end. */
export type LustreLayout = readonly [LustreComponent, ...LustreComponent[]];

/** `statfs` type of Lustre (LL_SUPER_MAGIC). */
export const LUSTRE_TYPE = 0x0bd0_0bd0;

const run = promisify(execFile);
const STRIPE_UNIT = 65_536;

/**
 * The arguments of `lfs` that give a layout to a folder.
 * @throws VramError `invalid-argument` where extents do not follow each other or a number is out
 * of range.
 */
export function setstripeArguments(layout: LustreLayout, folder: string): string[] {
  let begin = 0;
  const words = layout.flatMap(({ endBytes, stripeCount, stripeBytes }, index) => {
    const isLast = index === layout.length - 1;
    checkInteger('stripeCount', stripeCount, -1, 2000);
    assertArgument(stripeCount !== 0, 'stripeCount is 0');
    checkInteger('stripeBytes', stripeBytes, STRIPE_UNIT, 2 ** 32 - STRIPE_UNIT);
    assertArgument(stripeBytes % STRIPE_UNIT === 0, 'stripeBytes is no multiple of 64 KiB');
    assertArgument(isLast === (endBytes === undefined), 'the last component alone has no end');
    if (endBytes !== undefined) {
      checkInteger('endBytes', endBytes, begin + 1);
      assertArgument(endBytes % STRIPE_UNIT === 0, 'endBytes is no multiple of 64 KiB');
      begin = endBytes;
    }
    const extent = layout.length === 1 ? [] : ['-E', String(endBytes ?? -1)];
    return [...extent, '-c', String(stripeCount), '-S', String(stripeBytes)];
  });
  return ['setstripe', ...words, '--', folder];
}

/**
 * The layout that `lfs getstripe` tells, plain or YAML, of a file or of a folder.
 * @throws VramError `corrupt-data` for another text.
 */
export function parseLustreLayout(text: string): LustreLayout {
  const components: { endBytes?: number; stripeCount?: number; stripeBytes?: number }[] = [];
  const field = /(lcme_extent\.e_end|(?:lmm_)?stripe_count|(?:lmm_)?stripe_size):\s*(\S+)/g;
  for (const [, name = '', value] of text.matchAll(field)) {
    const number = value === 'EOF' ? undefined : Number(value);
    const isCount = name.endsWith('stripe_count');
    // An extent is told before its stripes; a plain layout has none.
    if (name.startsWith('lcme')) components.push(number === undefined ? {} : { endBytes: number });
    else if (isCount && components.at(-1)?.stripeCount !== undefined) components.push({});
    const last = components.at(-1) ?? components[components.push({}) - 1] ?? {};
    if (isCount && number !== undefined) last.stripeCount = number;
    if (name.endsWith('stripe_size') && number !== undefined) last.stripeBytes = number;
  }
  const whole = components.map(({ endBytes, stripeCount, stripeBytes }) => {
    if (!Number.isSafeInteger(stripeCount) || !Number.isSafeInteger(stripeBytes)) {
      throw new VramError('corrupt-data', 'lfs getstripe told no layout');
    }
    const end = endBytes === undefined ? {} : { endBytes };
    return { ...end, stripeCount: stripeCount ?? 0, stripeBytes: stripeBytes ?? 0 };
  });
  const [first, ...others] = whole;
  if (first === undefined) throw new VramError('corrupt-data', 'lfs getstripe told no layout');
  return [first, ...others];
}

/**
 * Gives a folder of a store a layout for its new files, which they keep when they are moved.
 * @returns What it has then; `undefined` where nothing was asked for.
 * @throws VramError `unsupported` for another file system, `not-found` without `lfs`.
 */
export async function applyLayout(
  store: string,
  fileSystemType: number,
  folder: string,
  layout: LustreLayout | undefined,
): Promise<LustreLayout | undefined> {
  if (layout === undefined) return undefined;
  if (fileSystemType !== LUSTRE_TYPE) {
    fail('unsupported', `${store} is not on Lustre, so it has no layout`, { fileSystemType });
  }
  await lfs(setstripeArguments(layout, folder));
  return parseLustreLayout(await lfs(['getstripe', '-d', '-y', '--', folder]));
}

async function lfs(words: readonly string[]): Promise<string> {
  try {
    return (await run('lfs', [...words])).stdout;
  } catch (cause) {
    const isMissing = codeOf(cause) === 'ENOENT';
    const why = isMissing ? "the Lustre client's 'lfs' is not installed" : 'it failed';
    throw new VramError(isMissing ? 'not-found' : 'unavailable', `lfs ${words[0]}: ${why}`, {
      cause,
    });
  }
}
