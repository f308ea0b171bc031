/** Options of the command line, and what it says to others. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { parseOptions } from './options.js';

it('has defaults, and finds its places', () => {
  expect(parseOptions(['--quick'], '/w')).toEqual({
    gpuBudgetBytes: 96 * 2 ** 20,
    steps: 4,
    store: '/w/reports/combined/store',
    target: { bits: 3 },
    expertBytes: undefined,
    folder: '/w/reports/combined',
    quick: true,
  });
  const args = ['--store', './here', '--bytes', '1.5M', '--gpu-budget', '128MiB', '--steps', '7'];
  expect(parseOptions(args, '/w')).toMatchObject({
    store: '/w/here',
    target: { fileBytes: 1.5 * 2 ** 20 },
    gpuBudgetBytes: 2 ** 27,
    steps: 7,
  });
  expect(parseOptions(['--store', 's3://bucket/x'], '/w')).toMatchObject({
    store: 's3://bucket/x',
  });
  expect(parseOptions(['--help'], '/w')).toBe('help');
});

it.each([
  [['--gpu-budget', 'much'], /'much' is no size/],
  [['--steps', '1'], /--steps/],
  [['--bits', '2'], /--bits 2 is not between/],
  [['--bits', 'three'], /--bits three/],
  [['--bits', '3', '--bytes', '1M'], /--bits and --bytes/],
  [['--store', 'memory:'], /outlive/],
  [['--unknown'], /--unknown/],
])('refuses %j', (args, message) => {
  expect(() => parseOptions(args, '/w')).toThrow(message);
});

it('says how it is used and ends with 2 where options make no sense', () => {
  const main = join(fileURLToPath(new URL('.', import.meta.url)), 'main.ts');
  const flags = ['--conditions=@vramkit/source', '--import', 'tsx', main, '--steps', 'none'];
  const { status, stderr } = spawnSync(process.execPath, flags, { encoding: 'utf8' });
  expect(status).toBe(2);
  expect(stderr).toMatch(/--steps/);
  expect(stderr).toContain('usage: npm run combined');
});
