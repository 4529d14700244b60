"""The command line: every command of this folder as `sensorium COMMAND`."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from sensorium.scripts import (
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
from sensorium.scripts.checkpoints import convert, export_llava, import_model, push
from sensorium.scripts.insight import analyze, explain, mine, sweep
from sensorium.scripts.serving import export, serve

RENAMED: dict[str, dict[str, str]] = {
    "": {"recipes": "list recipes"},
    "embed": {"--engine": "--backend", "--workers": "--num-workers"},
    "evaluate": {
        "--readings": "--input-ablation",
        "--no-readings": "--no-input-ablation",
    },
    "generate": {"--option": "--generate-kwarg"},
    "retrieve": {"--index": "--search", "--sheet": "--html", "--volume": "--mri"},
    "rollout": {
        "--batch": "--num-envs",
        "--blank": "--zero-stream",
        "--ensemble": "--temporal-ensemble-coeff",
        "--episodes": "--n-episodes",
        "--execute": "--n-action-steps",
        "--film": "--video-format",
        "--films": "--num-videos",
        "--replay-mean": "--open-loop-baseline",
        "--shuffle": "--shuffle-stream",
        "--swap": "--swap-instructions",
    },
}
"""Verb -> options of the first edition and their names of today; the first row holds verbs. Used
by error messages alone."""


@contextlib.contextmanager
def _name_renamed(table: Mapping[str, str], name: str | None = None) -> Iterator[None]:
    """Add today's name to the parser's error about an unknown option or verb."""
    try:
        yield
    except Exception as error:
        name = getattr(error, "option_name", name)
        if name is not None and name in table and hasattr(error, "message"):
            error.message = f"{name} is called {table[name]} now"
            if hasattr(error, "possibilities"):
                error.possibilities = None
        raise


class Verb(TyperCommand):
    """A verb whose unknown options are looked up in `RENAMED`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _name_renamed(RENAMED.get(self.name or "", {})):
            return super().parse_args(ctx, args)


class Verbs(TyperGroup):
    """The verbs; unknown ones are looked up in `RENAMED`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        with _name_renamed(RENAMED[""], args[0] if args else None):
            return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Verbs,
    help="Any encoder, any language decoder, one recipe.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import PackageNotFoundError, version

        import sensorium

        try:
            print(version("sensorium"))
        except PackageNotFoundError:  # run from a checkout that is not installed
            print(sensorium.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="print the version"),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="print the traceback of an error; allowed anywhere")
    ] = False,
) -> None:
    """Any encoder, any language decoder, one recipe."""


VERBS = (check, train, evaluate, generate, embed, retrieve, rollout, report)
for _verb in (*VERBS, info):
    app.command(_verb.__name__.rpartition(".")[2], cls=Verb)(_verb.main)
app.command("submit", cls=Verb)(train.submit)
app.command("convert", cls=Verb)(convert)
app.command("import", cls=Verb)(import_model)
app.command("export-llava", cls=Verb)(export_llava)
app.command("push", cls=Verb)(push)
app.command("serve", cls=Verb)(serve)
app.command("export", cls=Verb)(export)
app.command("look", cls=Verb)(report.look)
app.command("analyze", cls=Verb)(analyze)
app.command("explain", cls=Verb, context_settings={"ignore_unknown_options": True})(explain)
app.command("sweep", cls=Verb)(sweep)
app.command("mine", cls=Verb)(mine)
app.command("schema")(info.schema)
app.command("list")(info.list_parts)
app.add_typer(info.cache, name="cache")


@functools.cache
def command() -> Any:
    """Return the verbs as one click command, which typer makes again at each call of `app`."""
    return typer.main.get_command(app)
