/** A recorded trace as tables, CSV and page; and files that hold none. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TraceEvent } from '@vramkit/core';
import { chromeTrace } from '@vramkit/trace';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const binary = fileURLToPath(new URL('../../bin/vramkit.js', import.meta.url));
const events: TraceEvent[] = [
  { type: 'phase', timeMs: 5, durationMs: 40, label: 'forward' },
  { type: 'transfer', timeMs: 6, durationMs: 2, direction: 'upload', label: 'w', sizeBytes: 4e6 },
  {
    type: 'allocate',
    timeMs: 7,
    kind: 'kv',
    label: 'k',
    sizeBytes: 4096,
    liveBytes: 4096,
    liveBytesByKind: {
      weights: 0,
      kv: 4096,
      activations: 0,
      gradients: 0,
      optimizer: 0,
      staging: 0,
    },
  },
];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vramkit-cli-trace-'));
  writeFileSync(join(folder, 'trace.json'), JSON.stringify(chromeTrace(events)));
  writeFileSync(join(folder, 'other.json'), '{"traceEvents": 3}');
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function trace(...args: string[]) {
  const options = { cwd: folder, encoding: 'utf8' } as const;
  return spawnSync(process.execPath, [binary, 'trace', ...args], options);
}

describe('vramkit trace', () => {
  it('shows phases, lanes and memory', () => {
    const { status, stdout, stderr } = trace('trace.json');
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/^3 events in 40\.000 ms, at most 4 KiB \(most of each: kv 4 KiB\)\n/);
    expect(stdout).toMatch(
      /Phases\n {2}phase +ms +up, MB +down, MB\n {2}forward +40\.00 +4\.00 +0\.00\n/,
    );
  });

  it('counts for each parameter, as JSON', () => {
    const { stdout } = trace('trace.json', '--json', '--parameters', '1000000');
    expect(JSON.parse(stdout)).toMatchObject({
      ok: true,
      durationMs: 40,
      peakBytes: { total: 4096, byKind: { kv: 4096 } },
      tables: [{ title: 'Phases', rows: [['forward', '40.00', '4.00', '0.00']] }, {}],
    });
  });

  it('writes the CSV and a page that fetches nothing', () => {
    expect(trace('trace.json', '--csv', 't.csv', '--html', 't.html').status).toBe(0);
    const [header, first] = readFileSync(join(folder, 't.csv'), 'utf8').split('\n');
    expect(header).toMatch(/^device_id,timestamp,/);
    expect(first).toMatch(/,4096,0$/);
    const page = readFileSync(join(folder, 't.html'), 'utf8');
    expect(page).toContain('uPlot');
    expect(page).not.toMatch(/(src|href)="https?:/);
  });

  it.each([
    [['absent.json'], 1, /not-found: absent\.json/],
    [['other.json'], 1, /corrupt-data: other\.json is no trace of vramkit/],
    [['trace.json', '--parameters', 'many'], 2, /--parameters many is no count/],
    [[], 2, /'trace' needs FILE/],
  ])('refuses %j with %i', (args, code, message) => {
    const { status, stderr } = trace(...args);
    expect(stderr).toMatch(message);
    expect(status).toBe(code);
  });
});
