"""Templates say what they say, whatever the data say; contexts are packed in order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sensorium.modalities.base import Features
from sensorium.tasks.batch import Batch, Example
from sensorium.tasks.common import Prompt, assemble

ROW = {"age": 61.25, "name": "Ada", "q": "{name} <image> {{", "none": None, "many": ["a", "b"]}


@pytest.mark.parametrize(
    ("template", "streams", "texts"),
    [
        ("<image> Describe:", ("image",), ["", " Describe:"]),
        ("<a><b>", ("a", "b"), ["", "", ""]),
        (" <a>  <a> ", ("a", "a"), [" ", "  ", " "]),
        ("{name}, {age:.1f} <x_1>", ("x_1",), ["Ada, 61.2 ", ""]),
        ("<a>{q}", ("a",), ["", "{name} <image> {{"]),
        ("{{name}} <<image>> {name}", (), ["{name} <image> Ada"]),
        ("{{{name}}}", (), ["{Ada}"]),
        (
            "<bild_ü> <bild_u\u0308> <图>{name}",
            ("bild_ü", "bild_u\u0308", "图"),
            ["", " ", " ", "Ada"],
        ),
        ("<<图>> <<|x|>> <a b> <a.b> <a-b> <>", (), ["<图> <<|x|>> <a b> <a.b> <a-b> <>"]),
        ("1 < 2 > 0 <|end|> </s> <1>", (), ["1 < 2 > 0 <|end|> </s> <1>"]),
    ],
)
def test_a_template_is_streams_and_texts(
    template: str, streams: tuple[str, ...], texts: list[str]
) -> None:
    prompt = Prompt(template)
    assert prompt.streams == streams
    assert prompt.render(ROW) == texts


def test_columns_are_named_once_in_order() -> None:
    assert Prompt("{b} <i> {a} {b:>9} {a b.c}").columns == ("b", "a", "a b.c")


@pytest.mark.parametrize(
    ("template", "place"),
    [("a {b", 3), ("a} b", 2), ("{}", 1), ("{a{b}}", 1), ("{:.2f}", 1), ("{{}", 3)],
)
def test_a_stray_brace_is_named_by_place(template: str, place: int) -> None:
    with pytest.raises(ValueError, match=rf"character {place}; write \{{column\}}") as error:
        Prompt(template)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{agee}", ["'agee' is not in the row", "'age', 'name'", "columns"]),
        ("{none}", ["'none' is empty"]),
        ("{many}", ["'many' is a list"]),
        ("{name:.1f}", ["'name' holds 'Ada'", "'.1f'"]),
    ],
)
def test_a_cell_that_does_not_fit_is_named(template: str, words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"\{") as error:
        Prompt(template).render(ROW)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
PLAIN = st.text(st.characters(exclude_characters="{}<>"), max_size=8)
PIECES = st.lists(
    st.one_of(
        st.tuples(st.just("text"), PLAIN),
        st.tuples(st.just("stream"), NAMES),
        st.tuples(st.just("column"), NAMES),
        st.tuples(st.just("brace"), st.sampled_from("{}")),
        st.tuples(st.just("angle"), NAMES),
    ),
    max_size=8,
)
WRITTEN = {
    "text": "{}",
    "stream": "<{}>",
    "column": "{{{}}}",
    "angle": "<<{}>>",
}


@given(PIECES, st.dictionaries(NAMES, st.text(max_size=12)), st.text(max_size=12))
def test_what_is_written_is_what_is_read(
    pieces: list[tuple[str, str]], known: dict[str, str], other: str
) -> None:
    """Any pieces in any order, and any data, braces and angle brackets included."""
    template, expected, streams = "", [""], []
    row = {value: known.get(value, other) for kind, value in pieces if kind == "column"}
    for kind, value in pieces:
        template += value * 2 if kind == "brace" else WRITTEN[kind].format(value)
        if kind == "stream":
            streams.append(value)
            expected.append("")
        else:
            rendered = {"column": row.get(value, ""), "angle": f"<{value}>"}
            expected[-1] += rendered.get(kind, value)
    prompt = Prompt(template)
    assert prompt.streams == tuple(streams)
    assert prompt.render(row) == expected


@given(st.text(max_size=30))
def test_any_template_is_read_or_refused_in_one_line(template: str) -> None:
    try:
        prompt = Prompt(template)
    except ValueError as error:
        assert "character" in str(error)
    else:
        row = dict.fromkeys(prompt.columns, "x")
        assert len(prompt.render(row)) == len(prompt.streams) + 1


def by_hand(streams, texts, encode, backbone) -> Features:  # type: ignore[no-untyped-def]
    """The context row by row: every real token in order."""
    rows = []
    for i, gaps in enumerate(texts):
        pieces = []
        for place, gap in enumerate(gaps):
            ids = [2] * (place == 0) + backbone.tokenizer.encode(gap)
            pieces.append(backbone.embed(torch.tensor(ids, dtype=torch.long)))
            if place < len(streams):
                result = encode(streams[place])
                pieces.append(result.tokens[i][result.mask[i]])
        rows.append(torch.cat(pieces))
    return Features.pad(rows)


def batch_of(prompt: Prompt, rows, backbone) -> Batch:  # type: ignore[no-untyped-def]
    examples = [Example(prompt.encode(row, backbone.tokenizer)) for row in rows]
    return Batch.of("it", [str(i) for i in range(len(rows))], examples)


CASES = {
    "same text": ("<image> Say:", [{}] * 5),
    "no text": ("<image>", [{}] * 5),
    "text first": ("Look: <image>", [{}] * 5),
    "uneven text": ("<image> <state> {q}?", [{"q": "x" * n} for n in (3, 1, 0, 7, 2)]),
    "sometimes no text": ("<image>{q}<state>", [{"q": "x" * n} for n in (0, 4, 0, 1, 0)]),
    "twice": ("<image> and <image>", [{}] * 5),
    "text alone": ("{q}", [{"q": "x" * n} for n in (3, 1, 2, 7, 2)]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_context_is_its_pieces_in_order(  # type: ignore[no-untyped-def]
    case, backbone, make_streams, make_ragged
) -> None:
    template, rows = CASES[case]
    prompt = Prompt(template)
    encode = make_streams(image=make_ragged(5, 6), state=make_ragged(5, 3, seed=1))
    texts = [prompt.render(row) for row in rows]
    result = assemble(prompt.streams, batch_of(prompt, rows, backbone), encode.on(backbone))
    expected = by_hand(prompt.streams, texts, encode, backbone)
    assert torch.equal(result.lengths, expected.lengths)
    longest = expected.tokens.shape[1]
    assert not result.mask[:, longest:].any()
    assert torch.equal(result.mask[:, :longest], expected.mask)
    assert torch.equal(result.tokens[result.mask], expected.tokens[expected.mask])


def test_gradients_reach_real_tokens_alone(backbone, make_streams, make_ragged) -> None:  # type: ignore[no-untyped-def]
    image = make_ragged(4, 6)
    prompt = Prompt("a <image> {q}")
    batch = batch_of(prompt, [{"q": "x" * n} for n in (1, 3, 0, 2)], backbone)
    result = assemble(prompt.streams, batch, make_streams(image=image).on(backbone))
    result.tokens[result.mask].square().sum().backward()
    reached = image.tokens.grad.abs().sum(-1) > 0
    assert torch.equal(reached, image.mask)
    used = backbone.table.weight.grad.abs().sum(-1).nonzero().flatten().tolist()
    assert used == sorted({2, *backbone.tokenizer.encode("a x")})


def test_the_decoder_gives_the_precision(backbone, make_streams, make_ragged) -> None:  # type: ignore[no-untyped-def]
    encode = make_streams(image=make_ragged(2, 3).to(torch.bfloat16))
    batch = batch_of(Prompt("<image> a"), [{}] * 2, backbone)
    assert assemble(("image",), batch, encode.on(backbone)).tokens.dtype == torch.float32


def test_works_without_values(backbone, make_streams, make_ragged) -> None:  # type: ignore[no-untyped-def]
    """A dry run has shapes and no values: nothing may be read back from the device."""
    encode = make_streams(image=make_ragged(2, 3).to("meta"))
    batch = batch_of(Prompt("<image>{q}"), [{"q": " a"}, {"q": " bc"}], backbone).to("meta")
    result = assemble(("image",), batch, encode.on(backbone.to("meta")))
    assert result.tokens.is_meta
    assert result.tokens.shape == (2, 1 + 3 + 3, 16)


def test_a_wrong_width_names_both(backbone, make_streams, make_ragged) -> None:  # type: ignore[no-untyped-def]
    encode = make_streams(image=make_ragged(1, 3, dim=24))
    with pytest.raises(ValueError, match=r"inputs\.image\.connector: .* 24 .* 16"):
        assemble(("image",), batch_of(Prompt("<image>"), [{}], backbone), encode.on(backbone))
