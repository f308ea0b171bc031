/** The page of a run: each figure with its peers, spread, driver and machine; a failure is said. */
import { expect, it } from 'vitest';
import { renderPage, spreadPercent, type BenchRun } from './page.js';

const result = {
  suite: 'packing',
  case: '4 bits <fast>',
  metric: 'packing',
  unit: 'MB/s',
  ours: 200,
  peers: { rival: 100, other: 400 },
  ratios: { rival: 2, other: 0.5 },
  driver: 'lavapipe 25',
  runs: 7,
  min: 190,
  max: 230,
};
const run: BenchRun = {
  machine: { processor: 'CPU X', processors: 2, memoryGib: 8, system: 'Linux', node: '20.19.0' },
  startedAt: '2026-01-02T03:04:05.000Z',
  seconds: 61,
  quick: true,
  suites: [
    { name: 'packing', question: 'How fast?', seconds: 60, results: [result] },
    { name: 'decode', question: 'Also?', seconds: 1, results: [], error: 'Error: no <device>' },
  ],
};

it('shows a line for each peer, with ratio, spread, driver and machine', () => {
  const page = renderPage(run);
  expect(page).toContain('<th scope="row" rowspan="2">4 bits &lt;fast&gt;</th>');
  expect(page).toContain('<td>rival</td><td class="figure">100</td><td class="ahead">2.00</td>');
  expect(page).toContain('<td>other</td><td class="figure">400</td><td class="behind">0.500</td>');
  for (const text of ['±10 %, 7 runs', 'lavapipe 25', '2 x CPU X, 8 GiB', 'took 61 s, quick']) {
    expect(page).toContain(text);
  }
  expect(page).toContain('Failed: Error: no &lt;device&gt;');
  expect(page).not.toMatch(/(src|href)="(?!data:)/);
});

it('gives a spread of half the range, and none of nothing', () => {
  expect(spreadPercent(result)).toBe(10);
  expect(spreadPercent({ ours: 0, min: 0, max: 1 })).toBe(0);
});
