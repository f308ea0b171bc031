/** A lock file passes only with every optional package in it and no address of a registry. */
import { describe, expect, it } from 'vitest';
import { checkLock } from './lock-rules.js';
import type { LockFile } from './lock-rules.js';

const rules = (packages: NonNullable<LockFile['packages']>): string[] =>
  checkLock('package-lock.json', { packages }).map((found) => found.rule);

describe('checkLock', () => {
  it('finds an optional package without an entry', () => {
    const owner = { optionalDependencies: { '@x/darwin': '1.0.0', '@x/linux': '1.0.0' } };
    expect(rules({ 'node_modules/x': owner, 'node_modules/@x/linux': {} })).toEqual([
      'lock-optional',
    ]);
    expect(
      rules({
        'node_modules/x': owner,
        'node_modules/@x/linux': {},
        'node_modules/@x/darwin': {},
      }),
    ).toEqual([]);
  });

  it('looks where Node looks: nested first, then outwards', () => {
    const owner = { optionalDependencies: { y: '1.0.0' } };
    const place = 'node_modules/a/node_modules/x';
    expect(rules({ [place]: owner, [`${place}/node_modules/y`]: {} })).toEqual([]);
    expect(rules({ [place]: owner, 'node_modules/a/node_modules/y': {} })).toEqual([]);
    expect(rules({ [place]: owner, 'node_modules/b/node_modules/y': {} })).toEqual([
      'lock-optional',
    ]);
  });

  it('finds addresses, but lets links to the workspace be', () => {
    const resolved = 'https://registry.example/x-1.0.0.tgz';
    expect(rules({ 'node_modules/x': { resolved } })).toEqual(['lock-address']);
    expect(rules({ 'node_modules/x': { resolved: 'packages/x', link: true } })).toEqual([]);
  });
});
