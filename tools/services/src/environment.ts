/** Where the services of this run are, as their start scripts said it. */

/**
 * Bytes of the giant blob of each suite; 0 for none, because it takes minutes.
 * `VRAMKIT_GIANT_BYTES` says otherwise: 5368709120 goes beyond every offset of 32 bits.
 */
export const giantBytes = Number(process.env['VRAMKIT_GIANT_BYTES'] ?? 0);

/** A variable that `main.ts` sets. */
export function serviceVariable(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set: run npm run test:services`);
  return value;
}
