"""The analysis as one HTML page that needs nothing else: tables, pictures inside, commands and provenance."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from policyopt.provenance import provenance
from policyopt.reporting import report
from policyopt.reproduction.report import sections

if TYPE_CHECKING:
    from policyopt.reporting.analysis import Analysis
    from policyopt.reporting.reference import CellKey
    from policyopt.reproduction.report import Section

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1f2328; background: #fff;
       max-width: 1180px; margin: 2em auto; padding: 0 1.2em; }
h1 { font-size: 1.4em; margin-bottom: .2em; overflow-wrap: anywhere; }
h2 { margin-top: 2em; border-bottom: 1px solid #d0d7de; padding-bottom: .2em; }
h3 { margin: 1.6em 0 .2em; }
p.sub { color: #59636e; margin: .1em 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: .6em 0; }
th { text-align: right; background: #f6f8fa; border-bottom: 2px solid #d0d7de; padding: .3em .6em; white-space: nowrap; }
td { text-align: right; border-bottom: 1px solid #eaeef2; padding: .25em .6em; white-space: nowrap; }
th.l, td.l { text-align: left; }
td.wrap { white-space: normal; text-align: left; }
tr.new td { border-top: 2px solid #d0d7de; }
td.differs { background: #fbe3d6; font-weight: 600; } td.equivalent { background: #e3f0e8; }
td.not, td.undecided, td.ceiling, td.at { color: #59636e; }
img { max-width: 100%; height: auto; } figure { margin: 1em 0; } figcaption { color: #59636e; font-size: 13px; }
code, pre { font: 12px/1.45 ui-monospace, Consolas, monospace; background: #f6f8fa; } code { padding: .1em .3em; }
pre { padding: .8em; overflow-x: auto; } details { margin: .8em 0; } summary { cursor: pointer; font-weight: 600; }
"""


def html_report(
    analysis: Analysis,
    title: str,
    pictures: list[tuple[str, bytes]],
    commands: Mapping[CellKey, str],
    origin: Mapping[str, Any],
    spec: str = '',
) -> str:
    """One page as text.

    Args:
        analysis: Analysis.
        title: heading of the page.
        pictures: [(caption, PNG bytes)].
        commands: {CellKey: command that repeats its runs}.
        origin: {name: value} of the results' origin; values may be dicts or JSON text.
        spec: YAML text of the campaign.
    """
    heading = _e(title).replace('/', '/<wbr>')  # so that a narrow page breaks a path where it has a slash
    parts = [f'<h1>{heading}</h1>', *(line for s in sections(analysis) for line in _section(s)), *(_figure(*p) for p in pictures)]
    parts += ['<h2>Cells</h2>', _list(report.summary(analysis))]
    for task in analysis.baselines:
        parts.append(f'<h3>{_e(report.title_of(analysis, task))}</h3>')
        parts += [f'<p class="sub">{_e(line)}</p>' for line in report.baseline_lines(analysis, task)]
        parts.append(_table(*report.table_of(analysis, task, 1)))
        parts.append(f'<details><summary>{_e(task)}: all columns</summary>{_table(*report.table_of(analysis, task, 2))}</details>')
    parts += ['<h2>How to read it</h2>', *(f'<p>{_e(p)}</p>' for p in report.explanation(analysis))]
    shown = [c for c in report.COLUMNS if analysis.comparisons or not c.of_ref]
    parts.append('<details><summary>What every column means</summary><table>')
    parts += [f'<tr><td class="l">{_e(c.head)}</td><td class="wrap">{_e(c.meaning)}</td></tr>' for c in shown]
    parts.append('</table></details>')
    remarks = [f'{key}: {c.note}' for key, c in analysis.comparisons.items() if c.note]
    if remarks:
        parts.append(f'<details><summary>Remarks on single cells</summary>{_list(remarks)}</details>')
    if analysis.missing:
        parts.append(f'<details><summary>{len(analysis.missing)} missing runs</summary>{_list(analysis.missing)}</details>')
    parts.append(
        '<h2>Repeat it</h2><p>Seeds depend on the campaign and the run only, so each of these repeats the runs of its cell:</p>'
        '<div class="scroll"><table>'
    )
    parts += [f'<tr><td class="l">{_e(key)}</td><td class="l"><code>{_e(command)}</code></td></tr>' for key, command in commands.items()]
    parts.append('</table></div><h2>Provenance</h2><div class="scroll"><table>')
    parts += [f'<tr><td class="l">{_e(name)}</td><td class="wrap">{_value(value)}</td></tr>' for name, value in origin.items()]
    parts.append('</table></div>')
    if spec:
        parts.append(f'<details><summary>The campaign (YAML)</summary><pre>{_e(spec)}</pre></details>')
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{_e(title)}</title><style>{_STYLE}</style></head>\n<body>\n' + '\n'.join(parts) + '\n</body></html>\n'
    )


def page_of(analysis: Analysis, attrs: Mapping[str, str], commands: Mapping[CellKey, str], sources: Sequence[str | None]) -> str:
    """The page of one results file, with its root attributes as provenance and every picture that the data allow.

    `sources` are the files that were read (None for those that were not).
    """
    from policyopt.reporting import figures  # here, because matplotlib doubles the time that a printed table takes

    pictures = []
    for kind, caption in sorted(figures.KINDS.items(), key=lambda item: item[0] != 'forest'):  # the answer's picture first
        scores = not analysis.without_scores()
        # score and raw returns show the same: the score where there is one
        possible = {'figure1': scores, 'raw': not scores, 'reproduction': analysis.comparisons}
        if not possible.get(kind, analysis.aggregate):
            continue
        pictures.append((caption[0].upper() + caption[1:], figures.png_bytes(figures.results_figure(analysis, kind))))
    shown = {k: v for k, v in attrs.items() if k not in ('spec', 'content_sha256')}
    named = {name: f for name, f in zip(('results', 'reference', 'between sets'), sources, strict=True) if f}
    title = f'Results of {analysis.title or attrs.get("run_name") or sources[0]}'
    return html_report(
        analysis, title, pictures, commands, named | shown | {f'report: {k}': v for k, v in provenance().items()}, attrs.get('spec', '')
    )


def _e(x: Any) -> str:
    return html.escape(str(x))


def _list(items: Iterable) -> str:
    return '<ul>' + ''.join(f'<li>{_e(i)}</li>' for i in items) + '</ul>' if items else ''


def _figure(caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode('ascii')
    return f'<figure><img alt="{_e(caption)}" src="data:image/png;base64,{data}"><figcaption>{_e(caption)}</figcaption></figure>'


def _section(section: Section) -> Iterator[str]:
    yield f'<h2>{_e(section.title)}</h2>'
    yield from (f'<p>{_e(s)}</p>' for s in section.sentences)
    if section.lines:
        yield _table(section.heads, section.lines)
    yield from (f'<p class="sub">{_e(n)}</p>' for n in section.notes)


def _table(heads: list[str], lines: list[list[str]]) -> str:
    left = {i for i, h in enumerate(heads) if h in report.LEFT}
    meaning = {c.head: c.meaning for c in report.COLUMNS}
    out = [
        '<div class="scroll"><table><tr>',
        *(f'<th{_class(i in left)} title="{_e(meaning.get(h, "setting of the sweep"))}">{_e(h)}</th>' for i, h in enumerate(heads)),
        '</tr>',
    ]
    before = None
    for line in lines:
        out.append('<tr class="new">' if before not in (None, line[0]) else '<tr>')
        before = line[0]
        out += [
            f'<td{_class(i in left, x if h in ("verdict", "answer") else "")}>{_e(x)}</td>'
            for i, (h, x) in enumerate(zip(heads, line, strict=True))
        ]
        out.append('</tr>')
    return ''.join(out) + '</table></div>'


def _class(left: bool, verdict: str = '') -> str:
    names = [n for n in ('l' if left else '', verdict.split()[0].rstrip('*') if verdict else '') if n]
    return f' class="{_e(" ".join(names))}"' if names else ''


def _value(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in '{[':
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return _e(value)
    if isinstance(value, dict):
        return '<br>'.join(f'{_e(k)}: {_e(v)}' for k, v in value.items())
    return _e(value)
