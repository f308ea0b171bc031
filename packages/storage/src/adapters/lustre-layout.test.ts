/** Layouts as Lustre's documentation and its users show them; a file system that has none. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { posixStore } from '../index.js';
import { parseLustreLayout, setstripeArguments } from './lustre-layout.js';

const MIB = 2 ** 20;

// What `lfs getstripe` prints of a file with one component, of one with data on the metadata
// server and a second component, and of a folder with and without components.
const FILE = `
my_file
lmm_stripe_count:  4
lmm_stripe_size:   1048576
lmm_pattern:       raid0
lmm_layout_gen:    0
lmm_stripe_offset: 1
lmm_objects:
      - l_ost_idx: 1
        l_fid:     0x100010000:0x2:0x0
`;
const PROGRESSIVE = `
  lcm_layout_gen:    2
  lcm_mirror_count:  1
  lcm_entry_count:   2
    lcme_id:             1
    lcme_mirror_id:      0
    lcme_flags:          init
    lcme_extent.e_start: 0
    lcme_extent.e_end:   1048576
      lmm_stripe_count:  1
      lmm_stripe_size:   1048576
      lmm_pattern:       raid0
      lmm_layout_gen:    0
      lmm_stripe_offset: 5
      lmm_objects:
      - 0: { l_ost_idx: 5, l_fid: [0x100050000:0x20f0:0x0] }

    lcme_id:             2
    lcme_mirror_id:      0
    lcme_flags:          0
    lcme_extent.e_start: 1048576
    lcme_extent.e_end:   EOF
      lmm_stripe_count:  -1
      lmm_stripe_size:   4194304
      lmm_pattern:       raid0
      lmm_layout_gen:    0
      lmm_stripe_offset: -1
`;
const FOLDER = 'stripe_count:  8 stripe_size:   4194304 pattern:       raid0 stripe_offset: -1\n';

describe('layouts of Lustre', () => {
  it('are read from what lfs prints', () => {
    expect(parseLustreLayout(FILE)).toEqual([{ stripeCount: 4, stripeBytes: MIB }]);
    expect(parseLustreLayout(FOLDER)).toEqual([{ stripeCount: 8, stripeBytes: 4 * MIB }]);
    expect(parseLustreLayout(PROGRESSIVE)).toEqual([
      { endBytes: MIB, stripeCount: 1, stripeBytes: MIB },
      { stripeCount: -1, stripeBytes: 4 * MIB },
    ]);
    for (const text of ['', 'my_file has no stripe info', 'lcme_extent.e_end: EOF']) {
      expect(() => parseLustreLayout(text)).toThrow(
        expect.objectContaining({ code: 'corrupt-data' }),
      );
    }
  });

  it('become arguments of lfs, never a line of a shell', () => {
    const folder = '/lustre/a b; rm -rf x';
    const plain = setstripeArguments([{ stripeCount: 8, stripeBytes: 4 * MIB }], folder);
    expect(plain).toEqual(['setstripe', '-c', '8', '-S', '4194304', '--', folder]);
    const progressive = setstripeArguments(
      [
        { endBytes: 64 * MIB, stripeCount: 1, stripeBytes: MIB },
        { stripeCount: -1, stripeBytes: 16 * MIB },
      ],
      folder,
    );
    expect(progressive.slice(1, -2).join(' ')).toBe(
      '-E 67108864 -c 1 -S 1048576 -E -1 -c -1 -S 16777216',
    );
    for (const bad of [
      { stripeCount: 0, stripeBytes: MIB },
      { stripeCount: 1, stripeBytes: 1000 },
      { stripeCount: 1, stripeBytes: MIB, endBytes: MIB },
    ]) {
      expect(() => setstripeArguments([bad], folder)).toThrow(
        expect.objectContaining({ code: 'invalid-argument' }),
      );
    }
  });

  it('are refused where the file system is another one', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'vramkit-layout-'));
    try {
      expect((await posixStore({ folder })).layout).toBeUndefined();
      const layout = [{ stripeCount: 2, stripeBytes: MIB }] as const;
      await expect(posixStore({ folder, layout })).rejects.toMatchObject({ code: 'unsupported' });
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
