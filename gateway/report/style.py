"""How a card looks, on screen by day and by night and on paper, and the headers that let it do nothing else.

The page asks for nothing from anywhere: its one style sheet is allowed by its hash, and everything else is forbidden.
"""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark;
  --ink: #16181d; --soft: #565d69; --paper: #ffffff; --pane: #f5f6f8; --line: #d5d9e0;
  --good: #0b6e4f; --plain: #2457a6; --unsure: #8a5a00; --bad: #b3261e;
  --one: #2457a6; --two: #0b6e4f; --three: #b06a00; --four: #7a3e9d; --five: #6b7280; }
@media (prefers-color-scheme: dark) { :root {
  --ink: #e7e9ee; --soft: #a5adba; --paper: #14161a; --pane: #1d2026; --line: #373c46;
  --good: #5fd0a5; --plain: #8ab4f8; --unsure: #f0b95a; --bad: #ff8a80;
  --one: #8ab4f8; --two: #5fd0a5; --three: #f0b95a; --four: #cf9cf0; --five: #9aa3b0; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem; }
p { margin: .4rem 0; max-width: 62rem; }
.soft, figcaption, caption { color: var(--soft); }
.notice { background: var(--pane); border-left: .3rem solid var(--unsure); padding: .6rem 1rem; }
.verdict { background: var(--pane); border-left: .3rem solid var(--good); padding: .6rem 1rem; font-size: 1.05rem; }
code, pre { font: .86em/1.45 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere;
  unicode-bidi: isolate; }
pre { background: var(--pane); border: 1px solid var(--line); padding: .75rem; overflow-x: auto; white-space: pre; }
.wide { overflow-x: auto; } figure .wide svg { min-width: 38rem; } td svg { min-width: 8rem; }
:focus-visible { outline: 2px solid var(--plain); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: .25rem 0 .5rem; }
caption > span, .reason > div { display: block; width: fit-content; max-width: min(62rem, calc(100vw - 2.5rem));
  position: sticky; left: 0; }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem .4rem 0; border-bottom: 1px solid var(--line); }
thead th { border-bottom: 2px solid var(--line); }
tbody th { font-weight: 600; min-width: 9.5rem; } th .soft { font-weight: 400; }
.number { text-align: right; white-space: nowrap; }
tbody.variant tr:first-child > * { border-bottom: none; }
tbody.variant td.reason { padding-top: 0; color: var(--soft); max-width: 62rem; }
.serving { color: var(--good); } .eligible { color: var(--plain); }
.inconclusive { color: var(--unsure); } .rejected { color: var(--bad); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.25rem; margin: .5rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 36rem) { dl { grid-template-columns: 1fr; } dd { margin: 0 0 .5rem; } }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
svg .tick { fill: var(--soft); font-size: 11px; } svg .grid { stroke: var(--line); stroke-width: 1; }
svg .axis { stroke: var(--soft); stroke-width: 1; } svg .gate { stroke: var(--bad); stroke-dasharray: 6 4; }
svg .gate-label { fill: var(--bad); font-size: 11px; }
svg .front { stroke: var(--soft); fill: none; stroke-width: 1.5; }
svg .interval { stroke-width: 1.5; stroke: currentColor; }
svg .mark { fill: currentColor; stroke: currentColor; stroke-width: 1.5; }
svg .hollow { fill: var(--paper); stroke: currentColor; stroke-width: 2; }
svg .chosen { fill: none; stroke: currentColor; stroke-width: 2; }
svg .name { fill: currentColor; paint-order: stroke; stroke: var(--paper); stroke-width: 3px; }
svg .limit { stroke: var(--soft); } svg .line polyline { stroke: currentColor; stroke-width: 1.5; }
svg .line .used { stroke-width: 3; }
svg .line.one { color: var(--one); } svg .line.two { color: var(--two); } svg .line.three { color: var(--three); }
svg .line.four { color: var(--four); } svg .line.five { color: var(--five); }
.panels { display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; list-style: none; margin: .5rem 0; padding: 0; }
.key svg { display: inline-block; vertical-align: middle; }
svg .one { fill: var(--one); } svg .two { fill: var(--two); } svg .three { fill: var(--three); }
svg .four { fill: var(--four); } svg .five { fill: var(--five); }
details { margin: .5rem 0; } summary { cursor: pointer; }
a { color: var(--plain); }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --pane: #fff; --line: #bbb;
    --good: #0b6e4f; --plain: #2457a6; --unsure: #8a5a00; --bad: #b3261e;
    --one: #2457a6; --two: #0b6e4f; --three: #b06a00; --four: #7a3e9d; --five: #6b7280; }
  body { max-width: none; padding: 0; font-size: 10pt; } .wide { overflow: visible; } figure .wide svg { min-width: 0; }
  table { font-size: 8pt; } svg { max-height: 9cm; }
  figure, tbody.variant, tr, dl { break-inside: avoid; } h2, h3 { break-after: avoid; }
  thead { display: table-header-group; }
  pre { white-space: pre-wrap; } }
"""

_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
"""Also in the page itself, for a card that was saved and is opened from a disk."""

HEADERS = {
    "content-security-policy": f"{POLICY}; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
    "vary": "accept",
}
