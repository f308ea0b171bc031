/** The real binary on a real adapter, and its matrix product against the CPU twin. */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { createGpu } from '@vramkit/adapter';
import { openDevice, type VramDevice } from '@vramkit/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkMatmul } from '../doctor/measure.js';
import type { DoctorReport } from '../doctor/report.js';

const binary = fileURLToPath(new URL('../../bin/vramkit.js', import.meta.url));
const folder = fileURLToPath(new URL('.', import.meta.url));
const adapter = process.env['VRAMKIT_ADAPTER'] ?? 'none';

function vramkit(args: string[]) {
  return spawnSync(process.execPath, [binary, ...args], { cwd: folder, encoding: 'utf8' });
}

describe('matrix product', () => {
  let gpu: GPU;
  let device: VramDevice;
  beforeAll(async () => {
    ({ gpu } = await createGpu());
    device = await openDevice({ gpu });
  });
  afterAll(() => device.dispose());

  // One tile, less and more than a workgroup's rows and columns, and several workgroups.
  it.each([8, 24, 32, 40, 64, 72, 136])('of size %i equals its twin exactly', async (size) => {
    await expect(checkMatmul(device, size)).resolves.toBeUndefined();
  });
});

describe('vramkit doctor', () => {
  it('reports the adapter as JSON', () => {
    const { status, stdout, stderr } = vramkit(['doctor', '--json']);
    expect(status, stderr).toBe(0);
    const report = JSON.parse(stdout) as DoctorReport;
    expect(report).toMatchObject({
      ok: true,
      vramkit: expect.stringMatching(/^\d+\.\d+\.\d+$/),
      adapter: { name: adapter, software: adapter !== 'gpu', source: '@vramkit/adapter' },
      machine: { platform: process.platform, arch: process.arch },
    });
    expect(report.adapter.driver).not.toBe('');
    expect(report.limits['maxStorageBufferBindingSize']).toBeGreaterThanOrEqual(2 ** 27);
    expect(Object.keys(report.limits).length).toBeGreaterThan(20);
    expect(report.features).toContain('core-features-and-limits');
    const { matmulSize, ...figures } = report.measured;
    expect(matmulSize).toBeGreaterThanOrEqual(256);
    for (const [name, figure] of Object.entries(figures)) {
      expect(figure.runs, name).toBeGreaterThanOrEqual(5);
      expect(figure.min, name).toBeLessThanOrEqual(figure.median);
      expect(figure.median, name).toBeLessThanOrEqual(figure.max);
      expect(figure.median, name).toBeGreaterThan(0);
    }
  });

  it('reports it as text, and the adapter can be named', () => {
    const { status, stdout, stderr } = vramkit(['doctor', '--adapter', adapter]);
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(new RegExp(`adapter +${adapter}`));
    for (const title of ['Limits', 'Features', 'Measured (median)']) {
      expect(stdout).toContain(`\n${title}\n`);
    }
  });
});
