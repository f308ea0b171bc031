/** Faults of stores without a service: killed writers, a full disk. */
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { readBlob } from '@vramkit/storage';
import { testBytes } from '@vramkit/storage/testing';
import { describe, expect, it } from 'vitest';
import { chaosWalk } from '../chaos-walk.js';
import { killCount, killWriters } from '../kill-writers.js';
import { killAtEachStep, moments } from '../put-steps.js';
import { openStore } from '../stores.js';

for (const kind of ['posix', 'sqlite'] as const) {
  describe(kind, () => {
    it(`has a whole checkpoint after each of ${killCount} killed writers`, async () => {
      const folder = await mkdtemp(join(tmpdir(), 'vramkit-kill-'));
      try {
        const report = await killWriters(kind, folder, killCount);
        console.log(`${kind}: ${JSON.stringify(report)}`);
        expect(report).toMatchObject({ kills: killCount, wrong: [] });
      } finally {
        await rm(folder, { recursive: true });
      }
    }, 1_200_000);

    it.each([true, false])(
      'outlives a fault in every tenth call, retried: %s',
      async (isRetried) => {
        const folder = await mkdtemp(join(tmpdir(), 'vramkit-chaos-'));
        const { store, close } = await openStore(kind, folder);
        const report = await chaosWalk(store, 'chaos/', isRetried);
        await close();
        await rm(folder, { recursive: true });
        expect(report.wrong).toEqual([]);
        expect(report.failed > 0).toBe(!isRetried);
      },
    );

    it.each(moments)(
      'has the old bytes or the new ones, killed %s any step of a put',
      async (moment) => {
        const folder = await mkdtemp(join(tmpdir(), 'vramkit-step-'));
        try {
          const report = await killAtEachStep(kind, folder, moment);
          console.log(`${kind}, ${moment}: ${JSON.stringify(report)}`);
          expect(report.wrong).toEqual([]);
          expect(report.steps).toBeGreaterThan(10);
        } finally {
          await rm(folder, { recursive: true });
        }
      },
      300_000,
    );

    it('says that a disk is full, keeps what is there, and goes on', async (test) => {
      const folder = await mkdtemp(join(tmpdir(), 'vramkit-full-'));
      const mount = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=24m', 'vramkit', folder]);
      if (mount.status !== 0) {
        await rm(folder, { recursive: true });
        test.skip('a small tmpfs cannot be mounted here: not root');
      }
      await mkdir(join(folder, 'store'));
      const { store, close } = await openStore(kind, join(folder, 'store'));
      try {
        const kept = testBytes(2 * 2 ** 20, 1);
        await store.put('kept', kept);
        for (const key of ['kept', 'new']) {
          const put = store.put(key, testBytes(40 * 2 ** 20, 2));
          await expect(put).rejects.toMatchObject({ code: 'storage-full' });
        }
        expect(Buffer.compare(await readBlob(store, 'kept'), kept)).toBe(0);
        expect(await store.head('new')).toBeUndefined();
        await store.put('small', testBytes(1000));
        expect(await readBlob(store, 'small')).toEqual(testBytes(1000));
      } finally {
        await close();
        // Lazily: the driver gives its files back when its statements are collected.
        spawnSync('umount', ['-l', folder]);
        await rm(folder, { recursive: true, force: true });
      }
    });
  });
}
