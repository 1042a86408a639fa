"""How the report looks: the colors of this project's pictures, light and dark, and on paper."""

from __future__ import annotations

from ...themes import THEMES, Theme

_VERDICTS = {
    "light": "--good: #1a7340; --bad: #b3261e;",
    "dark": "--good: #6fcf97; --bad: #ff8a80;",
}


def _colors(name: str) -> str:
    theme: Theme = THEMES[name]
    colors = {part: getattr(theme, part) for part in ("paper", "ink", "soft", "shade", "first")}
    colors["faint"] = tuple((a + b) // 2 for a, b in zip(theme.line, theme.shade, strict=True))
    words = " ".join("--{}: rgb({}, {}, {});".format(part, *color) for part, color in colors.items())
    return f"{words} {_VERDICTS[name]}"


_RULES = """
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif;
}
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; border-top: 1px solid var(--faint); padding-top: 1rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
h4 { font-size: .95rem; margin: 1rem 0 0; }
h3, h4, li, summary, .note { overflow-wrap: anywhere; }
h3 small { font-weight: 400; unicode-bidi: isolate; }
p, li { max-width: 46rem; }
a { color: var(--first); }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; padding: 0; }
.lead { font-size: 1.3rem; line-height: 1.4; border-left: .3rem solid var(--first); padding-left: .9rem; }
.remarks { border: 1px solid var(--faint); border-radius: 6px; padding: .1rem 1rem .3rem; margin: 1.2rem 0; }
.remarks h2 { border: 0; margin: .5rem 0 0; padding: 0; font-size: 1rem; }
.remarks ul { margin: .3rem 0 .5rem; padding-left: 1.1rem; }
.note, figcaption, caption, small, .notes { color: var(--soft); font-size: .85rem; }
.notes strong { color: var(--ink); font-weight: 600; }
.wide { overflow-x: auto; margin: .8rem 0 .4rem; }
:focus-visible { outline: 2px solid var(--first); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
caption { text-align: left; padding-bottom: .3rem; font-weight: 600; color: var(--ink); }
th, td {
  text-align: left; vertical-align: top; padding: .25rem .7rem .25rem 0;
  border-bottom: 1px solid var(--faint);
}
thead th { font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 400; max-width: 20rem; overflow-wrap: break-word; }
td { max-width: 30rem; overflow-wrap: break-word; }
#compared td { overflow-wrap: anywhere; }
.group th { font-weight: 600; padding-top: .8rem; }
td small { display: block; white-space: nowrap; }
td strong { font-weight: 600; }
small.yes, .yes { color: var(--good); }
small.no, .no { color: var(--bad); }
summary { cursor: pointer; padding: .2rem 0; }
.figures { display: flex; flex-wrap: wrap; gap: .8rem 1.6rem; }
figure.cell { margin: 0; max-width: 100%; }
.shots { display: flex; flex-wrap: wrap; gap: .5rem; }
.shot { width: 9.2rem; font-size: .78rem; line-height: 1.3; overflow-wrap: anywhere; }
.shot.wide { width: 32rem; max-width: 100%; }
.shot img { display: block; width: 100%; height: auto; border-radius: 3px; margin-bottom: .2rem; }
.shot b { display: block; font-weight: 600; }
.shot small { display: block; font-size: .75rem; }
.lost {
  aspect-ratio: 1; border: 1px dashed var(--soft); border-radius: 3px; padding: .4rem; color: var(--soft);
  margin-bottom: .2rem; overflow: hidden;
}
pre {
  background: var(--shade); padding: .7rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .82rem; line-height: 1.45;
}
@media (max-width: 40rem) {
  th, td { padding-right: .5rem; }
  .shot { width: calc(50vw - 1.5rem); max-width: 9.2rem; }
  .shot.wide { width: 100%; max-width: 32rem; }
}
@media print {
  @page { size: A4 landscape; margin: 12mm; }
  body { max-width: none; padding: 0; font-size: 9pt; }
  nav { display: none; }
  .wide { overflow: visible; }
  table { font-size: 8pt; }
  .note, figcaption, caption, small, .notes, td small { font-size: 7.5pt; }
  th, td { padding-right: .4rem; }
  h2, h3, h4, caption, thead, .group, .prompt > .note { break-after: avoid; }
  tr, figure, .remarks { break-inside: avoid; }
  .shot { width: 7rem; }
  .shot.wide { width: 24rem; max-width: 100%; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""

_LIGHT, _DARK = _colors("light"), _colors("dark")

STYLE = (
    f":root {{ color-scheme: light dark; {_LIGHT} }}\n"
    f"@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} }} }}\n"
    f"{_RULES}"
    f"@media print {{ :root {{ color-scheme: light; {_LIGHT} --paper: #fff; }} }}\n"
)
