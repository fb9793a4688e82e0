"""The evaluation as one offline page: numbers, curves, and the clips side by side. No script or font is fetched."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from streamchar.evaluation.plot import plot

if TYPE_CHECKING:
    from streamchar.evaluation.report import ClipRow, Report

STYLE = """
:root{--paper:#fbfaf8;--card:#fff;--ink:#22242a;--soft:#6c707a;--line:#e4e2dd;--accent:#2e6ea0;
--real:#7a7f88;--codec:#b08a3c;--student:#2e6ea0;--teacher:#8a4f9e;--own_head:#2e6ea0;--given:#2e6ea0;--no_sink:#c0603a;--open_loop:#4f8f5a;--baseline:#c9c5bd;
--still:#b0643c;--swapped:#5d8f3a;--one:#a04a6e;--noise:#9a9a9a}
@media(prefers-color-scheme:dark){:root{--paper:#15171b;--card:#1d2026;--ink:#e7e8ea;--soft:#9a9fa9;--line:#2e323a;
--accent:#7db4e0;--real:#a4a9b3;--codec:#d6b36a;--student:#7db4e0;--teacher:#c596d8;--own_head:#7db4e0;--given:#7db4e0;--baseline:#4a4f59}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1120px;margin:0 auto;padding:40px 24px 80px}
h1{font-size:26px;margin:0 0 6px;letter-spacing:-.01em}h2{font-size:18px;margin:44px 0 14px}
.facts{color:var(--soft);display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13.5px}
.facts b{color:var(--ink);font-weight:600}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:10px}
table{border-collapse:collapse;width:100%}
th,td{padding:8px 14px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
th:first-child,td:first-child{text-align:left}tr:last-child td{border-bottom:0}
th{font-weight:600;font-size:13px;color:var(--soft)}td{font-variant-numeric:tabular-nums}
td.note,th.note{text-align:left;color:var(--soft);font-size:13px;white-space:normal;min-width:260px}
tr.group td{font-size:12px;letter-spacing:.06em;text-transform:uppercase;color:var(--soft);padding-top:16px}
td.model{font-weight:600}td small{display:block;color:var(--soft);font-weight:400;font-size:11.5px}
.clip{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px 18px}
.clips{display:grid;gap:16px;grid-template-columns:minmax(0,1fr)}
.clips.single{grid-template-columns:repeat(auto-fill,minmax(min(240px,100%),1fr))}
.clip h3{margin:0 0 2px;font-size:15px}.clip p.say{margin:0 0 12px}
.videos{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:14px}
figure{margin:0;max-width:260px}video{width:100%;border-radius:8px;background:#000;display:block}
figcaption{font-size:13px;color:var(--soft);margin-top:6px}figcaption b{color:var(--ink)}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(420px,100%),1fr));gap:16px}
.curve{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.curve h3{margin:0 0 6px;font-size:14px}svg{width:100%;height:auto;display:block}
svg text{fill:var(--soft);font-size:11px}.axis{stroke:var(--line)}
.key{font-size:13px;color:var(--soft)}.key span{margin-right:12px;white-space:nowrap}
.key i{display:inline-block;width:14px;height:3px;margin:0 5px 3px 0}
.picture{max-width:100%;background:#fff;border:1px solid var(--line);border-radius:10px}
.notes{color:var(--soft);padding-left:18px}.soft{color:var(--soft);margin:-6px 0 14px}
"""


def page(report: Report) -> str:
    """The page's HTML; videos are referred to relative to it."""
    from streamchar.evaluation.report import CHEATING, TITLES

    facts = "".join(f"<span>{escape(str(k))} <b>{escape(str(v))}</b></span>" for k, v in report.facts.items())
    parts = [f"<h1>{escape(report.title)}</h1><div class=facts>{facts}</div>", "<h2>Numbers</h2>",
             _numbers(report, report.columns())]
    if report.columns(cheats=True):
        parts += [f"<h2>What must look bad</h2><p class=soft>{escape(CHEATING)}</p>",
                  _numbers(report, report.columns(cheats=True))]
    if report.curves:
        parts += ["<h2>Curves</h2><div class=curves>",
                  *[plot(name, lines, {c: TITLES.get(c, c) for c in lines}, {c: f"var(--{c})" for c in lines})
                    for name, lines in report.curves.items()], "</div>"]
    for heading, path in report.pictures.items():
        parts.append(f'<h2>{escape(heading)}</h2><img class=picture alt="{escape(heading)}" src="{_address(path)}">')
    if report.clips:
        kind = "clips single" if all(len(c.videos) < 2 for c in report.clips) else "clips"
        parts += [f'<h2>Clips</h2><div class="{kind}">', *map(_clip, report.clips), "</div>"]
    if report.notes:
        items = "".join(f"<li>{escape(n)}</li>" for n in report.notes)
        parts.append(f"<h2>How to read this</h2><ul class=notes>{items}</ul>")
    return document(report.title, "".join(parts))


def document(title: str, body: str, style: str = "") -> str:
    """A whole page around ``body``; ``style`` is added to :data:`STYLE`."""
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="color-scheme" '
            f'content="light dark"><meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body><main>"
            f"{body}</main></body></html>\n")


def _numbers(report: Report, columns: list[str]) -> str:
    from streamchar.evaluation.report import CHEATS, MODELS, TITLES

    cheats = [c for c in columns if c in CHEATS]
    judged = cheats or columns
    head = "".join(f"<th>{TITLES[c]}</th>" for c in columns)
    rows, group = [], None
    for row in report.rows:
        if not any(c in row.values for c in judged):
            continue
        if row.group != group:
            group = row.group
            rows.append(f"<tr class=group><td colspan={len(columns) + 2}>{escape(group)}</td></tr>")
        cells = "".join(f"<td class={'model' if c in MODELS else 'other'}>{escape(row.text(c))}"
                        f"<small>{escape(row.spread(c))}</small></td>" for c in columns)
        note = "" if cheats else f"<td class=note>{escape(row.remark())}</td>"
        rows.append(f"<tr><td>{escape(row.name)}</td>{cells}{note}</tr>")
    last = "" if cheats else "<th class=note>what it says</th>"
    return (f"<div class=scroll><table><thead><tr><th>measure</th>{head}{last}</tr></thead>"
            f"<tbody>{''.join(rows)}</tbody></table></div>")


def _clip(clip: ClipRow) -> str:
    from streamchar.evaluation.report import TITLES

    figures = [clip_figure(clip, column, TITLES.get(column, column), _address(clip.videos[column]),
                           _address(clip.posters.get(column, ""))) for column in clip.videos]
    return clip_card(clip, figures)


def clip_card(clip: ClipRow, figures: list[str]) -> str:
    """A clip's name, its text, and figures beside one another."""
    return (f"<section class=clip><h3>{escape(clip.key)}</h3><p class=say>{escape(clip.text) or '(quiet)'}</p>"
            f"<div class=videos>{''.join(figures)}</div></section>")


def clip_figure(clip: ClipRow, column: str, title: str, video: str, poster: str) -> str:
    """One rendering of a clip: its video and still (as attributes), title, numbers, and what was heard."""
    still = f' poster="{poster}"' if poster else ""
    numbers = " \u00b7 ".join(_number(k, v) for k, v in clip.numbers.get(column, {}).items() if v == v)
    heard = clip.heard.get(column)
    said = f"<br>heard: {escape(heard) or '(nothing)'}" if heard is not None else ""
    return (f'<figure><video controls preload="metadata"{still} src="{video}"></video>'
            f"<figcaption><b>{escape(title)}</b> {numbers}{said}</figcaption></figure>")


def _number(name: str, value: float) -> str:
    """A number under a video: ``word errors 16.7 %``, ``lag -7``, ``r 0.54``; no break inside."""
    if name.endswith(" %"):
        shown = f"{name[:-2]} {value:.1f} %"
    else:
        shown = f"{name} {f'{value:.2f}'.rstrip('0').rstrip('.')}"
    return escape(shown).replace(" ", "&nbsp;")


def _address(path: str) -> str:
    """A relative path as an attribute: file names may hold what addresses and HTML give a meaning."""
    return escape(quote(path))
