"""How the report looks: the colors of this project's pictures, light and dark."""

from __future__ import annotations

from ..themes import THEMES, Theme


def _colors(theme: Theme) -> str:
    colors = {name: getattr(theme, name) for name in ("paper", "ink", "soft", "shade", "first", "second")}
    colors["faint"] = tuple((a + b) // 2 for a, b in zip(theme.line, theme.shade, strict=True))
    return " ".join("--{}: rgb({}, {}, {});".format(name, *color) for name, color in colors.items())


_RULES = """
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 4rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif;
}
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; border-top: 1px solid var(--faint); padding-top: 1rem; }
h3 { font-size: 1rem; margin: 1.8rem 0 .2rem; }
p, li { max-width: 46rem; }
.lead { font-size: 1.3rem; line-height: 1.4; border-left: .3rem solid var(--first); padding-left: .9rem; }
.note, figcaption, caption, small { color: var(--soft); font-size: .85rem; }
figcaption strong, caption { color: var(--ink); font-weight: 600; }
caption { text-align: left; padding-bottom: .3rem; }
.wide { overflow-x: auto; margin: .8rem 0 .4rem; }
.wide:focus-visible { outline: 2px solid var(--first); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td {
  text-align: left; vertical-align: top; padding: .1rem .8rem .1rem 0;
  border-bottom: 1px solid var(--faint);
}
thead th { font-weight: 600; }
tbody th { font-weight: 400; max-width: 16rem; overflow-wrap: break-word; }
tbody th small { display: block; }
.count { white-space: nowrap; }
.ranks { font-size: .9rem; }
.ranks tbody th { min-width: 9rem; }
figure { margin: .6rem 0; }
svg { display: block; width: 100%; height: auto; color: var(--ink); }
svg text { fill: var(--ink); font-family: inherit; }
.pair {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: .4rem 2.5rem; align-items: start;
}
.pair > * { min-width: 0; }
.bar { display: inline-block; width: 6rem; height: .7rem; margin-right: .5rem; background: var(--shade); }
.bar span { display: block; height: 100%; background: var(--first); }
.cards {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr));
  gap: 1.2rem;
}
.card {
  border: 1px solid var(--faint); border-radius: 6px; overflow: hidden; background: var(--paper);
  margin: 0;
}
.card .picture {
  display: grid; place-items: center; height: 15rem; background: var(--shade); color: var(--soft);
  font-size: .85rem; padding: .4rem; text-align: center;
}
.card img { max-width: 100%; max-height: 14.2rem; border-radius: 3px; }
.card .words {
  color: var(--ink); padding: .6rem .8rem .8rem; font-size: .85rem; line-height: 1.4;
  overflow-wrap: anywhere;
}
.card p { margin: 0 0 .5rem; }
.card .file { color: var(--soft); font-size: .78rem; }
.card .text { white-space: pre-wrap; max-height: 8.4em; overflow-y: auto; }
.card .text:focus-visible { outline: 2px solid var(--first); }
.card .why { color: var(--second); margin: 0; font-weight: 600; }
.card b { display: block; font-size: .72rem; font-weight: 600; color: var(--soft); }
@media (max-width: 40rem) { .bar { width: 3.2rem; } th, td { padding-right: .5rem; } }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  .wide { overflow: visible; }
  figure, tr, .card { break-inside: avoid; }
  .card .text { max-height: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

_LIGHT, _DARK = _colors(THEMES["light"]), _colors(THEMES["dark"])

STYLE = (
    f":root {{ color-scheme: light dark; {_LIGHT} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}\n"
    f"{_RULES}"
    f"@media print {{ :root {{ {_LIGHT} }} }}\n"
)
