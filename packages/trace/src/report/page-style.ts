/** Style of a report; light and dark by the reader's setting. */

/** CSS text. */
export const PAGE_STYLE = `
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #5b6570;
  --line: #d7dce1; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --paper: #14171a; --soft: #9aa5b1; --line: #343b43; }
}
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 1.6rem; margin: 0 0 12px; } h2 { font-size: 1.15rem; margin: 32px 0 8px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0 0 20px; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } .u-legend { color: var(--ink); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.scroll th, .scroll td { text-align: right; padding: 4px 12px;
  border-bottom: 1px solid var(--line); }
.scroll th { color: var(--soft); }
.scroll th:first-child, .scroll td:first-child { text-align: left; }
.key { margin: 4px 0 0 84px; font-size: 13px; } .key span { margin-right: 8px; padding: 2px 8px;
  display: inline-block; }
.lanes { width: 100%; height: auto; } .lanes text { fill: var(--soft); font-size: 12px; }
.lane0 { fill: #5b6570; } .lane1 { fill: #0b6e99; } .lane2 { fill: #c2571a; }
.lane3 { fill: #4d8f3a; } .lane4 { fill: #8b5fbf; } .lane5 { fill: #b8860b; }
`;
