/**
 * Chooses the adapters that the GPU tests run on: one vitest project each.
 *
 * Default: every adapter of this machine. `VRAMKIT_ADAPTER` narrows that to one. An adapter that is
 * named in `VRAMKIT_REQUIRE_ADAPTER` (a comma-separated list, for continuous integration) must be
 * there; any other missing one is reported in words, because a silent skip looks like a pass.
 */
import { adapterNames } from './survey.js';
import type { AdapterName, AdapterReport } from './survey.js';

/** What the GPU tests run on, and what a person should know about it. */
export interface TestAdapters {
  /** Adapters to make a test project for. */
  readonly adapters: readonly AdapterName[];
  /** One line per adapter that is not used, and one for those that are. */
  readonly message: string;
}

/** Environment that steers {@link chooseTestAdapters}. */
export interface TestAdapterEnv {
  readonly VRAMKIT_ADAPTER?: string | undefined;
  readonly VRAMKIT_REQUIRE_ADAPTER?: string | undefined;
}

function checkName(variable: string, name: string): AdapterName {
  const known = adapterNames.find((each) => each === name);
  if (known !== undefined) return known;
  throw new Error(`${variable}: unknown adapter '${name}'; known: ${adapterNames.join(', ')}`);
}

/**
 * Picks from a survey what the tests run on.
 * @throws Error for an unknown name and for a demanded adapter that is not usable.
 */
export function chooseTestAdapters(
  reports: readonly AdapterReport[],
  env: TestAdapterEnv,
): TestAdapters {
  const forced = env.VRAMKIT_ADAPTER
    ? checkName('VRAMKIT_ADAPTER', env.VRAMKIT_ADAPTER)
    : undefined;
  const required = (env.VRAMKIT_REQUIRE_ADAPTER ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '')
    .map((name) => checkName('VRAMKIT_REQUIRE_ADAPTER', name));
  if (forced !== undefined) required.push(forced);
  const missing = reports.filter((report) => !report.usable);
  for (const { adapter, detail } of missing) {
    if (required.includes(adapter)) {
      throw new Error(`adapter '${adapter}' is required and missing: ${detail}`);
    }
  }
  const adapters = reports
    .filter((report) => report.usable && (forced === undefined || report.adapter === forced))
    .map((report) => report.adapter);
  const lines = [
    adapters.length > 0
      ? `GPU tests run on: ${adapters.join(', ')}`
      : 'GPU TESTS DO NOT RUN: this machine offers no adapter',
    ...missing.map(({ adapter, detail }) => `  not on ${adapter}: ${detail}`),
  ];
  return { adapters, message: lines.join('\n') };
}
