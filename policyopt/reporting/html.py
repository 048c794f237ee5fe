"""The analysis as one self-contained HTML page: pictures, tables, commands and provenance."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from policyopt.provenance import provenance
from policyopt.reporting import tables
from policyopt.reporting.analysis import Analysis, repeat_commands

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
td.wrap { white-space: normal; text-align: left; overflow-wrap: anywhere; }
tr.new td { border-top: 2px solid #d0d7de; }
td.worse { background: #fbe3d6; font-weight: 600; } td.same, td.better { background: #e3f0e8; }
td.too { color: #59636e; }
img { max-width: 100%; height: auto; } figure { margin: 1em 0; } figcaption { color: #59636e; font-size: 13px; }
code, pre { font: 12px/1.45 ui-monospace, Consolas, monospace; background: #f6f8fa; } code { padding: .1em .3em; }
pre { padding: .8em; overflow-x: auto; } details { margin: .8em 0; } summary { cursor: pointer; font-weight: 600; }
"""


def html_report(
    analysis: Analysis, sections: Sequence[tables.Section], pictures: Iterable[tuple[str, bytes]], sources: Mapping[str, str]
) -> str:
    """One page as text.

    Args:
        analysis: Analysis, with the root attributes of its results.
        sections: shown before the cells.
        pictures: [(caption, PNG bytes)].
        sources: {description: path} of the files that were read.
    """
    name, *about = (analysis.title or sources['results']).split('; ')
    title = f'Results of {name}: {len(analysis.cells)} cells' + (', compared with published ones' if analysis.comparisons else '')
    subtitles = [x for x in (*about, analysis.of_sets()) if x]
    parts = [f'<h1>{_e(title)}</h1>', *(f'<p class="sub">{_e(x).replace("/", "/<wbr>")}</p>' for x in subtitles)]  # breaks at a slash
    parts += [_picture(*p) for p in pictures]
    for s in sections:
        parts += [f'<h2>{_e(s.title)}</h2>', *(f'<p>{_e(x)}</p>' for x in s.sentences)]
        parts += [tables.render(s.table, 'html')] if s.table else []
        parts += [f'<p class="sub">{_e(x)}</p>' for x in s.notes]
    parts += ['<h2>Cells</h2>', _list(tables.summary(analysis))]
    for s, every in zip(*(tables.task_sections(analysis, level) for level in (1, 2)), strict=True):
        parts += [f'<h3>{_e(s.title)}</h3>', *(f'<p class="sub">{_e(line)}</p>' for line in s.sentences)]
        parts += [tables.render(s.table, 'html'), _details(f'{s.title}: all columns', tables.render(every.table, 'html'))]
    parts += ['<h2>How to read it</h2>', *(f'<p>{_e(p)}</p>' for p in tables.explanation(analysis))]
    shown = [c for c in tables.CELL_COLUMNS if c.level < tables.CSV_ONLY and (analysis.comparisons or not c.needs_reference)]
    parts += [_details('What every column means', _pairs((c.title, _e(c.meaning)) for c in shown))]
    remarks = [f'{key}: {c.note}' for key, c in analysis.comparisons.items() if c.note]
    parts += [_details('Remarks on single cells', _list(remarks))] if remarks else []
    parts += [_details(f'{len(analysis.missing)} missing runs', _list(analysis.missing))] if analysis.missing else []
    parts += ['<h2>Repeat it</h2><p>Seeds depend on the experiment and the run only, so each of these repeats the runs of its cell:</p>']
    parts += [_pairs((key, f'<code>{_e(x)}</code>') for key, x in repeat_commands(analysis.cells, analysis.attrs).items())]
    told = {k: v for k, v in analysis.attrs.items() if k not in ('spec', 'content_sha256')}
    origin = {**sources, **told, **{f'report: {k}': v for k, v in provenance().items()}}
    parts += ['<h2>Provenance</h2>', _pairs((name, _value(value)) for name, value in origin.items())]
    if spec := analysis.attrs.get('spec', ''):
        parts += [_details('The experiment (YAML)', f'<pre>{_e(spec)}</pre>')]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{_e(title)}</title><style>{_STYLE}</style></head>\n<body>\n' + '\n'.join(parts) + '\n</body></html>\n'
    )


def _e(x: Any) -> str:
    return html.escape(str(x))


def _list(items: Iterable) -> str:
    return '<ul>' + ''.join(f'<li>{_e(i)}</li>' for i in items) + '</ul>' if items else ''


def _details(summary: str, content: str) -> str:
    return f'<details><summary>{_e(summary)}</summary>{content}</details>'


def _pairs(items: Iterable[tuple[Any, str]]) -> str:
    """An HTML table of names and values."""
    lines = (f'<tr><td class="l">{_e(name)}</td><td class="wrap">{value}</td></tr>' for name, value in items)
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'


def _picture(caption: str, png: bytes) -> str:
    data = base64.b64encode(png).decode('ascii')
    return f'<figure><img alt="{_e(caption)}" src="data:image/png;base64,{data}"><figcaption>{_e(caption)}</figcaption></figure>'


def _value(value: Any) -> str:
    if isinstance(value, str) and value[:1] in '{[':
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return _e(value)
    if isinstance(value, dict):
        return '<br>'.join(f'{_e(k)}: {_e(v)}' for k, v in value.items())
    return _e(value)
