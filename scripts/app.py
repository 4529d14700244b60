"""The command line: every verb of this folder under one name, `sensorium`."""

from __future__ import annotations

import typer

from sensorium.scripts import (
    cache,
    check,
    embed,
    evaluate,
    generate,
    info,
    report,
    retrieve,
    rollout,
    train,
)

app = typer.Typer(
    help="Any encoder, any language decoder, one recipe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
VERBS = (check, train, evaluate, generate, embed, retrieve, rollout, report)
for _verb in (*VERBS, info):
    app.command(_verb.__name__.rpartition(".")[2])(_verb.main)
for _list in (info.schema, info.recipes):
    app.command(_list.__name__)(_list)
app.add_typer(cache.app, name="cache")
