/** Where the services of this run are, as their start scripts said it. */

/** A variable that `main.ts` sets. */
export function serviceVariable(name: string): string {
  const value = process.env[name];
  if (value === undefined) throw new Error(`${name} is not set: run npm run test:services`);
  return value;
}
