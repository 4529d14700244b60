"""The report's page: its style and its Jinja template. No script, no font, no address."""

from __future__ import annotations

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --card: #f6f7f9; --ink: #1b1f24; --soft: #59636e;
  --edge: #d5dae0; --good: #116329; --bad: #a40e26; --bad-paper: #fdecee; --mark: #ffd8a8;
  --c0: #0b62c4; --c1: #b35900; --c2: #117a4b; --c3: #8a3ab9; --c4: #c2185b; --c5: #5d6b00; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161b; --card: #1b2128; --ink: #e8ecf0;
  --soft: #a4b0bc; --edge: #36404a; --good: #6fd58f; --bad: #ff9aa5; --bad-paper: #3a1c22;
  --mark: #7a4a00; --c0: #6cb3ff; --c1: #ffab5c; --c2: #62d39d; --c3: #cf9bff; --c4: #ff8ab5;
  --c5: #cdd96a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 84rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2, h3, h4 { line-height: 1.25; margin: 0 0 .6rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.35rem; } h3 { font-size: 1.05rem; }
h4 { font-size: .95rem; font-weight: 600; margin-top: 1rem; }
p { margin: 0 0 .7rem; } code, pre { font: .88em/1.45 ui-monospace, monospace; }
pre { overflow-x: auto; background: var(--card); padding: .8rem; border-radius: 8px; }
code { background: var(--card); padding: .1rem .35rem; border-radius: 4px; }
.soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
.runs { display: grid; gap: 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 33rem), 1fr)); }
.run { min-width: 0; display: grid; gap: 1.5rem 0; grid-row: span 5;
  grid-template-rows: subgrid; }
section { min-width: 0; container-type: inline-size; }
.note { border-left: 4px solid var(--c1); padding: .3rem .8rem; background: var(--card); }
dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem 1rem; margin: 0 0 .8rem; }
dt { color: var(--soft); } dd { margin: 0; }
.scroll { overflow-x: auto; margin-bottom: .8rem; }
table { border-collapse: collapse; width: 100%; max-width: 46rem; margin: 0 0 .6rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--edge);
  vertical-align: top; overflow-wrap: normal; }
th.n, td.n { text-align: right; white-space: nowrap; } tr.head > * { font-weight: 700; }
thead th { color: var(--soft); font-weight: 600; }
@media (max-width: 30rem) { table { font-size: .85rem; } th, td { padding: .3rem; } }
.way, .lane { display: flex; align-items: center; gap: .3rem; }
.lanes, .ends { display: flex; flex-direction: column; gap: .5rem; flex: 1 1 0;
  min-width: 0; }
.box { flex: 1 1 0; min-width: 0; border: 1.5px solid var(--edge); border-radius: 8px;
  padding: .4rem .55rem; background: var(--card); font-size: .85rem; line-height: 1.35; }
.box.frozen { border-style: dashed; }
.box b, .box small { display: block; } .box small { color: var(--soft); }
.arrow { color: var(--soft); flex: none; }
@container (max-width: 34rem) {
  .way, .lane { flex-direction: column; align-items: stretch; }
  .way > *, .lanes, .ends { flex: none; }
  .lanes { flex-direction: row; } .lane { flex: 1; } .arrow { align-self: center; line-height: 1; }
  .box b, .box small { display: inline; margin-right: .5em; }
  .arrow span { display: inline-block; transform: rotate(90deg); } }
.charts { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); }
.chart { margin: 0; max-width: 30rem; } .chart > svg { display: block; width: 100%; }
.chart text { font-size: 12px; fill: var(--soft); } .chart .axis { fill: var(--ink); }
.base { stroke: var(--soft); }
.rule { stroke: var(--edge); stroke-width: 1; fill: none; }
.line { fill: none; stroke: var(--c0); stroke-width: 2; stroke-linejoin: round; }
.line.faint { stroke-width: 1; opacity: .35; } .dot { fill: var(--c0); }
.line.c1 { stroke: var(--c1); stroke-dasharray: 7 3; } .dot.c1 { fill: var(--c1); }
.line.c2 { stroke: var(--c2); stroke-dasharray: 2 3; } .dot.c2 { fill: var(--c2); }
.line.c3 { stroke: var(--c3); stroke-dasharray: 9 3 2 3; } .dot.c3 { fill: var(--c3); }
.line.c4 { stroke: var(--c4); stroke-dasharray: 4 2; } .dot.c4 { fill: var(--c4); }
.line.c5 { stroke: var(--c5); stroke-dasharray: 1 2; } .dot.c5 { fill: var(--c5); }
.line.faint { stroke-dasharray: none; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .1rem 1rem; margin: 0;
  padding: 0 0 .5rem .5rem; font-size: .85rem; }
.swatch { width: 24px; height: 8px; margin-right: .35rem; }
.grid { list-style: none; margin: 0 0 1rem; padding: 0; display: grid; gap: .7rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 9.5rem), 1fr)); }
.grid.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
.grid.full { grid-template-columns: repeat(auto-fill, minmax(min(100%, 36rem), 1fr)); }
.sample { border: 1px solid var(--edge); border-radius: 8px; padding: .6rem; min-width: 0;
  background: var(--card); font-size: .88rem; line-height: 1.4; }
.sample.wrong { border-color: var(--bad); background: var(--bad-paper); }
.sample img, .sample video, .sample svg, .sample canvas { max-width: 100%; height: auto; }
.sample audio { width: 100%; }
.sample p { margin: .2rem 0 0; white-space: pre-line; } .sample .input { margin-bottom: .3rem; }
.input > small { display: block; }
.sample small { color: var(--soft); } mark { background: var(--mark); color: inherit; }
mark.lost { background: none; border-bottom: 2px solid var(--bad); }
summary { cursor: pointer; font-weight: 600; margin-bottom: .5rem; }
"""

_BOX = """
{% macro box(b) %}
<div class="box{{ ' frozen' if b.frozen }}"><small>{{ b.role }}</small><b>{{ b.title }}</b>
{% if b.detail %}<small>{{ b.detail }}</small>{% endif %}
{% if b.trained or b.size %}<small>{{ b.trained }}{{ ', ' if b.trained and b.size }}{{ b.size }}
</small>{% endif %}</div>
{% endmacro %}
{% macro arrow() %}<span class="arrow" aria-hidden="true"><span>&#10140;</span></span>{% endmacro %}
{% macro mark(good) %}{{ {true: '✓', false: '✗', none: '–'}[good] }}{% endmacro %}
"""

_ABOUT = """
<section><h2>{{ run.name if runs|length > 1 else "The run" }}</h2>
{% for note in run.notes %}<p class="note">{{ note }}</p>{% endfor %}
{% if run.command %}<p>Trained by <code>{{ run.command }}</code></p>{% endif %}
<dl>{% for name, value in run.facts %}<dt>{{ name }}</dt><dd>{{ value }}</dd>{% endfor %}</dl>
<p class="soft">{{ run.made }}</p></section>
<section><h3>The way of the data</h3>
<div class="way" role="img" aria-label="{{ run.way.told() }}">
{% if run.way.lanes %}<div class="lanes" style="flex-grow: {{ run.way.longest }}">
{% for lane in run.way.lanes %}<div class="lane">
{% for b in lane %}{{ arrow() if not loop.first }}{{ box(b) }}{% endfor %}</div>{% endfor %}</div>
{{ arrow() }}{% endif %}
{% if run.way.backbone %}{{ box(run.way.backbone) }}{{ arrow() }}{% endif %}
<div class="ends">{% for b in run.way.tasks %}{{ box(b) }}{% endfor %}</div>
</div></section>
"""

_CURVES = """
<section><h3>Curves</h3>
{% if run.loss or run.curves %}<div class="charts">
{% if run.loss %}<div><h4>Training loss</h4>{{ run.loss }}</div>{% endif %}
{% for title, drawing in run.curves %}<div><h4>{{ title }}</h4>{{ drawing }}</div>{% endfor %}
</div><p class="soft">Thin: as logged. Thick: the mean of each point and its neighbours. Beside
a name: its last value.</p>
{% else %}<p class="soft">There are none.</p>{% endif %}
{% if run.others %}<details><summary>Learning rate, speed and what else was logged</summary>
<div class="charts">{% for title, drawing in run.others %}<div><h4>{{ title }}</h4>{{ drawing }}
</div>{% endfor %}</div></details>{% endif %}
{% for part, drawn in run.fitted %}<details open><summary>Fitted: {{ part }}</summary>
<div class="charts">{% for title, drawing in drawn %}<div><h4>{{ title }}</h4>{{ drawing }}</div>
{% endfor %}</div></details>{% endfor %}</section>
"""

_METRICS = """
<section><h3>Metrics</h3>
{% for t in run.tables %}<div class="scroll"><table>
<caption>{{ t.label }}{% if t.count %}, {{ '{:,}'.format(t.count) }} rows{% endif %}</caption>
<thead><tr><th scope="col">metric</th><th scope="col" class="n">value</th>
{% for s in t.streams %}<th scope="col" class="n">{{ s }} shuffled</th>{% endfor %}
</tr></thead><tbody>
{% for name, value, others in t.rows %}
<tr{{ ' class="head"'|safe if name == t.headline }}><th scope="row">{{ name }}</th>
<td class="n">{{ value|number }}</td>
{% for other in others %}<td class="n">{{ other|number }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% for s in t.sentences %}
<p class="{{ {true: 'good', false: 'bad', none: 'soft'}[s.good] }}">{{ mark(s.good) }} {{ s.text }}
</p>{% endfor %}
{% else %}<p class="soft">There are none.</p>{% endfor %}{{ run.rollouts }}</section>
"""

_SAMPLES = """
<section><h3>Samples</h3>
{% for s in run.samples %}<details{{ ' open' if loop.first }}>
<summary>{{ s.label }}, {{ '{:,}'.format(s.count) }} rows</summary>
{% if s.problem %}<p class="note">The inputs cannot be shown here: {{ s.problem }}</p>{% endif %}
{% if s.marked %}<p class="soft">Words that differ from the nearest reference are
<mark>marked</mark>; in the reference, <mark class="lost">those that were not said</mark>.</p>
{% endif %}
{% if s.asked %}<p>Asked (◻ an input): <code>{{ s.asked }}</code></p>{% endif %}
{% for title, group in s.groups %}<h4>{{ title }}</h4><ul class="grid {{ s.grid }}">
{% for one in group %}{% set v = one.verdict %}
<li class="sample{{ ' wrong' if v.right is false }}">
{% for name, shown in one.inputs %}<div class="input">
{% if one.inputs|length > 1 %}<small>{{ name }}</small>{% endif %}{{ shown }}</div>{% endfor %}
{% if one.drawing %}<div class="input">{{ one.drawing }}</div>{% endif %}
{% if one.asked %}<p><small>asked</small> {{ one.asked }}</p>{% endif %}
<p>{% if v.right is true %}<b class="good">✓ right</b>{% elif v.right is false %}
<b class="bad">✗ wrong</b>{% endif %}</p>
<p><small>said</small> {{ v.said }}</p>
{% for text in v.references %}<p><small>reference</small> {{ text }}</p>{% endfor %}
<p><small>{{ v.note }}{{ ' · ' if v.note }}{{ one.key }}</small></p></li>
{% endfor %}</ul>{% endfor %}</details>
{% else %}<p class="soft">There are none: the run has no predictions.</p>{% endfor %}
<details><summary>The recipe</summary><pre>{{ run.recipe }}</pre></details></section>
"""

_SUMMARY = """
{% if runs|length > 1 %}<div class="scroll"><table><caption>At a glance</caption>
<thead><tr><th scope="col">run</th><th scope="col">task</th><th scope="col">result</th>
<th scope="col">uses its input</th></tr></thead><tbody>
{% for run in runs %}{% for t in run.tables %}<tr><th scope="row">{{ run.name }}</th>
<td>{{ t.label }}</td><td>{{ t.headline }}
{% for name, value, _ in t.rows if name == t.headline %}{{ value|number }}{% endfor %}</td>
<td>{{ t.sentences|selectattr('short')|join('; ', attribute='short') }}</td></tr>
{% else %}<tr><th scope="row">{{ run.name }}</th><td colspan="3">not evaluated</td></tr>
{% endfor %}{% endfor %}</tbody></table></div>{% endif %}
"""

PAGE = f"""{_BOX}<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:;
 media-src data:; style-src 'unsafe-inline'">
<title>{{{{ title }}}}: report</title><style>{_STYLE}</style></head><body>
<header><h1>Report: {{{{ title }}}}</h1></header><main>
{_SUMMARY}
<div class="runs">{{% for run in runs %}}<article class="run">
{_ABOUT}{_CURVES}{_METRICS}{_SAMPLES}</article>{{% endfor %}}</div></main></body></html>
"""
