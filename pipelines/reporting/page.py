"""The page of ``stage=report``: everything in one file that fetches nothing."""

from __future__ import annotations

from html import escape

from pipelines.reporting.clips import evaluated_clips, last_samples
from pipelines.reporting.curves import curves
from pipelines.reporting.figures import facts, numbers, stream_curves
from pipelines.reporting.media import Media
from pipelines.reporting.origins import origins, progress, setting_differences
from pipelines.reporting.reading import RunFound
from streamchar.evaluation.page import document

COLOURS = ("student", "no_sink", "open_loop", "teacher", "codec", "one", "still", "real")
"""Those of the evaluation's columns, which both themes have."""
OWN = """
main{max-width:1320px}.scroll{margin:0 0 14px}th small{display:block;font-weight:400}
table.facts-of td,table.facts-of th{text-align:left;white-space:normal;vertical-align:top;min-width:110px}
table.facts-of td:first-child{color:var(--soft)}
th i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px}
details{margin:12px 0}summary{cursor:pointer;color:var(--soft);margin:0 0 12px}
h2 small{font-weight:400;color:var(--soft);font-size:13px}
.curves{grid-template-columns:repeat(auto-fill,minmax(min(330px,100%),1fr))}
.curve h3{font-size:13px}.pictures{display:flex;flex-wrap:wrap;gap:14px;margin:0 0 14px}
.pictures figure{max-width:600px}.pictures img{max-width:100%;border-radius:6px;display:block;background:#fff}
.gaps{border-left:3px solid var(--no_sink);padding:2px 0 2px 14px;margin:14px 0}
.gaps ul{margin:2px 0 8px;padding-left:18px}
"""


def page(runs: list[RunFound], media: Media) -> str:
    """The HTML; ``media`` says what may be embedded."""
    names = [run.name for run in runs]
    colours = {name: f"var(--{COLOURS[i % len(COLOURS)]})" for i, name in enumerate(names)}
    title = f"Runs {', '.join(names)}" if len(names) > 1 else f"Run {names[0]}"
    parts = [f"<h1>{escape(title)}</h1><p class=facts>of {escape(str(runs[0].directory.root))}</p>", _gaps(runs),
             "<h2>Progress</h2>", _table(progress(runs), names, colours),
             "<h2>Settings that differ</h2>", _settings(runs, colours),
             "<h2>Evaluation</h2>", _evaluation(runs, colours)]
    for heading, cards, after in (("Clips of the evaluations", evaluated_clips(runs, media), _training(runs, colours)),
                                  ("Last pictures and samples of training", last_samples(runs, media), [])):
        parts += [f"<h2>{heading}</h2><div class=clips>", *cards, "</div>", *after] if cards else after
    if media.linked:
        parts.append(f"<p class=soft>{media.embedded} videos and pictures are in this file; {media.linked} more are "
                     "linked and are shown only while the page lies where it was written (report.embed_mb).</p>")
    parts += ["<h2>Of what they were made</h2>", _table(origins(runs), names, colours)]
    return document(title, "".join(parts), OWN)


def _gaps(runs: list[RunFound]) -> str:
    """What is missing, before anything that a reader might take for whole."""
    told = "".join(f"<b>{escape(run.name)}</b><ul>{''.join(f'<li>{escape(line)}</li>' for line in run.missing)}</ul>"
                   for run in runs if run.missing)
    return f"<div class=gaps><p>Not everything is here.</p>{told}</div>" if told else ""


def _settings(runs: list[RunFound], colours: dict[str, str]) -> str:
    if len(runs) < 2:
        return "<p class=soft>There is one run alone.</p>"
    rows = [(key, [*values, stages]) for key, values, stages in setting_differences(runs)]
    if not rows:
        return "<p class=soft>None, in the stages that several of them have.</p>"
    return _table(rows, [run.name for run in runs], colours, "in the stages")


def _evaluation(runs: list[RunFound], colours: dict[str, str]) -> str:
    table = numbers(runs)
    if not table:
        return "<p class=soft>None of these runs was evaluated (stage=evaluate).</p>"
    notes = [(run.name, note) for run in runs if run.report for note in run.report.notes]
    drawn = stream_curves(runs, colours)
    told = "".join(f"<li><b>{escape(name)}</b> {escape(note)}</li>" for name, note in notes)
    return "".join([
        _table(facts(runs), [run.name for run in runs], colours), table,
        f"<div class=curves>{''.join(drawn)}</div>" if drawn else "",
        f"<details><summary>notes of the evaluations</summary><ul class=notes>{told}</ul></details>" if told else ""])


def _training(runs: list[RunFound], colours: dict[str, str]) -> list[str]:
    parts = []
    for stage, (judged, ran) in curves(runs, colours).items():
        parts.append(f"<h2>{stage} <small>over steps; beside each name its last value</small></h2>"
                     f"<div class=curves>{''.join(judged)}</div>")
        if any(ran):
            parts.append(f"<details><summary>{sum(map(bool, ran))} more: what students stand beside, stability, speed, "
                         f"machine</summary>"
                         f"<div class=curves>{''.join(ran)}</div></details>")
    return parts


def _table(rows: list[tuple[str, list[str]]], names: list[str], colours: dict[str, str], last: str = "") -> str:
    """A cell per run, and one more where ``last`` heads it."""
    heads = [f'<th><i style="background:{colours[name]}"></i>{escape(name)}</th>' for name in names]
    body = "".join(f"<tr><td>{escape(key)}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
                   for key, cells in rows)
    return (f"<div class=scroll><table class=facts-of><thead><tr><th></th>{''.join(heads)}"
            f"{f'<th>{escape(last)}</th>' if last else ''}</tr></thead><tbody>{body}</tbody></table></div>")
