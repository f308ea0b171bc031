/** The text of the doctor's report: numbers, alignment, width, colours. */
import { stripVTControlCharacters } from 'node:util';
import { describe, expect, it } from 'vitest';
import { formatBytes, formatFailure, formatNumber, formatReport } from './format.js';
import { summarize } from './measure.js';
import type { DoctorFailure, DoctorReport } from './report.js';

const machine = {
  platform: 'linux',
  arch: 'x64',
  runtime: 'node 20.20.2',
  processor: 'A processor',
  processorCount: 2,
  memoryBytes: 16 * 2 ** 30,
};
const rate = summarize([10, 12, 11], 'GB/s');
const report: DoctorReport = {
  ok: true,
  vramkit: '1.2.3',
  machine,
  adapter: {
    name: 'gpu',
    driver: 'A driver 1.0',
    vendor: 'acme',
    architecture: '',
    device: '',
    software: false,
    backend: 'Vulkan',
    implementation: 'Dawn',
    source: 'npm webgpu',
  },
  limits: { maxBufferSize: 2 ** 32, maxStorageBufferBindingSize: 2 ** 27 },
  features: ['shader-f16', ...Array.from({ length: 30 }, (_, i) => `feature-number-${i}`)],
  measured: {
    uploadWriteBuffer: summarize([5], 'GB/s'),
    uploadMapped: rate,
    download: rate,
    copy: rate,
    matmul: summarize([1234.5], 'GFLOP/s'),
    matmulSize: 2048,
    dispatch: summarize([3.14159], 'us'),
    completionWait: summarize([40], 'us'),
  },
};

describe('numbers', () => {
  it.each([
    [0, '0 B'],
    [1023, '1023 B'],
    [1024, '1 KiB'],
    [1536, '1.5 KiB'],
    [2 ** 27, '128 MiB'],
    [2 ** 32, '4 GiB'],
    [2 ** 52, '4096 TiB'],
  ])('%i bytes are %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text));

  it.each([
    [0, '0.00'],
    [3.14159, '3.14'],
    [31.4159, '31.4'],
    [314.159, '314'],
    [31415.9, '31,416'],
  ])('%f is %s', (value, text) => expect(formatNumber(value)).toBe(text));

  it('of several runs are median, least and most', () => {
    expect(summarize([3, 1, 2], 'us')).toEqual({ median: 2, min: 1, max: 3, unit: 'us', runs: 3 });
    expect(summarize([4, 1, 2, 3], 'us').median).toBe(2.5);
  });
});

describe('report as text', () => {
  it('is the same with colours, apart from the colours', () => {
    const plain = formatReport(report, false);
    const coloured = formatReport(report, true);
    expect(coloured).not.toBe(plain);
    expect(stripVTControlCharacters(coloured)).toBe(plain);
    expect(stripVTControlCharacters(plain)).toBe(plain);
  });

  it('fits 100 columns, ends no line in blanks and aligns the figures', () => {
    const lines = formatReport(report, false).split('\n');
    expect(lines.filter((line) => line.length > 100 || line !== line.trimEnd())).toEqual([]);
    const units = lines.flatMap((line) => (/^ {2}.*?(?= (GB\/s|us) )/.exec(line) ?? [''])[0]);
    const columns = new Set(units.filter((text) => text !== '').map((text) => text.length));
    expect(columns.size).toBe(1);
  });

  it('names the adapter, the cut of memory, the missing features and the faster upload', () => {
    const text = formatReport(report, false);
    expect(text).toMatch(/adapter +gpu\n/);
    expect(text).toMatch(/largest storage binding +128 MiB/);
    expect(text).toMatch(/shader-f16 +yes\n +subgroups +no\n/);
    expect(text).toMatch(/matrix product, f32 +1,235 +GFLOP\/s .*2048 x 2048/);
    expect(text).toContain('Uploads go faster by the mapped ring here, 2.2 times.');
    expect(text).not.toContain('software');
  });

  it('warns of a software driver', () => {
    const software = { ...report, adapter: { ...report.adapter, software: true } };
    expect(formatReport(software, false)).toMatch(/gpu \(software\)\n[\s\S]*A software driver:/);
    const unnamed = { ...report, adapter: { ...software.adapter, name: 'software' } };
    expect(formatReport(unnamed, false)).toMatch(/adapter +software\n/);
  });

  it('of a failure names the error and lists the advice under its titles', () => {
    const failure: DoctorFailure = {
      ok: false,
      vramkit: '1.2.3',
      machine,
      error: { code: 'no-adapter', message: 'no-adapter: nothing here' },
      advice: [{ title: 'Do this', lines: ['first', 'second'] }],
    };
    const text = formatFailure(failure, false);
    expect(text).toMatch(/no-adapter: nothing here\n/);
    expect(text).toMatch(/\nDo this\n {2}first\n {2}second\n$/);
    expect(stripVTControlCharacters(formatFailure(failure, true))).toBe(text);
  });
});
