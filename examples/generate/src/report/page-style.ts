/** Style of the report page; light and dark by the reader's setting. */

/** CSS text. */
export const PAGE_STYLE = `
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #5b6570;
  --line: #d7dce1; --mark: #0b6e99; --panel: #f5f7f9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --paper: #14171a; --soft: #9aa5b1;
  --line: #343b43; --mark: #4fb3dd; --panel: #1d2227; } }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 1.7rem; margin: 0 0 12px; } h2 { font-size: 1.2rem; margin: 36px 0 10px; }
h3 { font-size: 1rem; margin: 16px 0 2px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0 0 20px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table.summary { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.summary th, .summary td { text-align: right; padding: 6px 10px;
  border-bottom: 1px solid var(--line); }
.summary th { color: var(--soft); font-weight: 600; }
.summary th:first-child, .summary td:first-child { text-align: left; }
.note { color: var(--soft); font-size: 0.9rem; }
.question, .answer { background: var(--panel); border-left: 3px solid var(--line);
  padding: 8px 12px; margin: 4px 0; white-space: pre-wrap; overflow-wrap: anywhere; }
.question { border-color: var(--mark); }
.plot { overflow-x: auto; } .u-legend { color: var(--ink); }
.map { width: 100%; height: auto; } .map rect { fill: var(--mark); }
.map text { fill: var(--soft); font-size: 13px; }
.map line { stroke: var(--ink); stroke-dasharray: 3 3; }
`;
