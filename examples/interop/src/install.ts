/**
 * Installs the other runtimes before the tests start, so that no two tests install at once. Where
 * that fails the tests say what they skip, and why.
 */
import { installRuntimes } from './runtimes.js';

const log = (line: string) => void process.stderr.write(`${line}\n`);
try {
  await installRuntimes(log);
} catch (error) {
  log(`the tests of other runtimes will be skipped: ${String(error)}`);
}
