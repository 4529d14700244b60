"""A contact sheet: what was asked and what was found, on one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from .index import Hit

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --card: #f6f7f9; --ink: #1b1f24; --soft: #59636e;
  --edge: #d5dae0; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161b; --card: #1b2128; --ink: #e8ecf0;
  --soft: #a4b0bc; --edge: #36404a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 84rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .6rem; }
.asked { margin-bottom: 1.2rem; } .soft, dt { color: var(--soft); }
ol { list-style: none; margin: 0; padding: 0; display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 14rem), 1fr)); }
li { border: 1px solid var(--edge); border-radius: 8px; padding: .7rem; min-width: 0;
  background: var(--card); font-size: .88rem; line-height: 1.4; }
img, video, svg, canvas { max-width: 100%; height: auto; } audio { width: 100%; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem .6rem; margin: .4rem 0 0; }
dd { margin: 0; } p { margin: .3rem 0; }
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
 media-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title><style>{{ style }}</style></head><body><main>
<h1>{{ title }}</h1>
<div class="asked">{{ asked }}</div>
<p class="soft">{{ note }}</p>
<ol>{% for hit, shown in found %}<li>{{ shown }}
<p><b>{{ loop.index }}</b> &middot; {{ '%.4f'|format(hit.score) }}</p>
<dl>{% for name, value in hit.columns().items() %}<dt>{{ name }}</dt><dd>{{ value }}</dd>
{% endfor %}</dl></li>
{% else %}<li>No row was found.</li>{% endfor %}</ol></main></body></html>
"""


def write_sheet(
    path: Path,
    hits: Sequence[Hit],
    shown: Sequence[Markup | str],
    *,
    title: str,
    asked: Markup | str,
    note: str,
) -> Path:
    """Write the page; gives its path. shown: each hit as its modality shows it. asked: likewise
    the query. Texts are escaped; `Markup` is taken as it is."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    page = environment.from_string(_PAGE).render(
        title=title,
        asked=asked,
        note=note,
        style=Markup(_STYLE),
        found=list(zip(hits, shown, strict=True)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path
