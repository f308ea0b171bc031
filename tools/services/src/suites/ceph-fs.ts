/**
 * The posix adapter on CephFS, a real distributed file system, in place of Lustre, which cannot be
 * started here: two mounts, two clients of the cluster that share nothing but it.
 */
import { randomUUID } from 'node:crypto';
import { mkdir, open, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LUSTRE_TYPE, posixStore, readBlob } from '@vramkit/storage';
import { describeStore, testBytes } from '@vramkit/storage/testing';
import { describe, expect, it } from 'vitest';
import { checkpointsOf, stepName, stepTensors, verifyLatest } from '../checkpoint-steps.js';

const mounts = process.env['CEPH_FS_MOUNTS']?.split(':') ?? [];
const [a = '', b = ''] = mounts;
if (mounts.length < 2) {
  console.log('CephFS: NOT TESTED, /dev/fuse cannot be opened here');
  it.skip('CephFS: /dev/fuse cannot be opened here', () => undefined);
} else {
  describeStore(
    'posix on CephFS, two mounts',
    async () => {
      const name = randomUUID();
      return {
        store: await posixStore({ folder: join(a, name) }),
        other: await posixStore({ folder: join(b, name) }),
        reopen: () => posixStore({ folder: join(b, name) }),
        close: () => rm(join(a, name), { recursive: true }),
      };
    },
    { describe, it, expect },
    { raceRounds: 8, pageKeys: 64, seeds: [1], steps: 80 },
  );

  describe('posix on CephFS, two mounts', () => {
    it('shows each mount at once what the other one published', async () => {
      const name = randomUUID();
      const left = await posixStore({ folder: join(a, name) });
      const right = await posixStore({ folder: join(b, name) });
      expect(left.fileSystemType).not.toBe(LUSTRE_TYPE);
      expect(left.capabilities.createIfAbsent).toBe(true);
      for (let i = 0; i < 20; i += 1) {
        const [from, to] = i % 2 === 0 ? [left, right] : [right, left];
        const bytes = testBytes(100_000 + i, i);
        const info = await from.put('deep/er/key', bytes);
        expect(await to.head('deep/er/key')).toEqual(info);
        expect(Buffer.compare(await readBlob(to, 'deep/er/key'), bytes)).toBe(0);
      }
      await left.delete('deep/er/key');
      expect(await right.head('deep/er/key')).toBeUndefined();
    });

    it('sees a write in place by another client as another version', async () => {
      const name = randomUUID();
      const store = await posixStore({ folder: join(a, name) });
      const { version } = await store.put('a', testBytes(1000));
      await writeFile(join(b, name, 'a'), 'changed elsewhere');
      await expect(readBlob(store, 'a', { version })).rejects.toMatchObject({ code: 'conflict' });
      expect(Buffer.from(await readBlob(store, 'a')).toString()).toBe('changed elsewhere');
    });

    it('makes a synced file of one mount whole in the other, byte ranges too', async () => {
      const name = randomUUID();
      await mkdir(join(a, name));
      const bytes = testBytes(8 * 2 ** 20);
      const file = await open(join(a, name, 'raw'), 'w');
      await file.write(bytes);
      await file.sync();
      await file.close();
      expect(Buffer.compare(await readFile(join(b, name, 'raw')), bytes)).toBe(0);
    });

    it('lets one mount save a checkpoint and the other one load it', async () => {
      const name = randomUUID();
      const left = checkpointsOf(await posixStore({ folder: join(a, name) }));
      const right = checkpointsOf(await posixStore({ folder: join(b, name) }));
      for (const step of [1, 2, 3]) {
        await left.save(stepName(step), stepTensors(step), { metadata: { step } });
        expect(await verifyLatest(right)).toBe(step);
      }
    });
  });
}
