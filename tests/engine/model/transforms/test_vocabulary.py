"""`swap_vocabulary` and `factorize_embeddings`: known tokens keep their rows, mixes stay in the
hull, full rank is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_checkpoints import AUTO, logits, tiny
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sensorium.engine.checkpoint import load_model, save_run
from sensorium.engine.model import compose, resolve_and_fit
from sensorium.engine.model.transforms import apply_steps, convert
from sensorium.engine.model.transforms.context import TransformContext
from sensorium.engine.model.transforms.vocabulary.pieces import pieces, read_tokenizer
from sensorium.engine.recipe import parse_recipe, parse_transforms
from sensorium.engine.utils import ConfigError
from sensorium.tests.engine.model.transforms.transform_recipes import recipe

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
OLD = [*SPECIAL, "walk", "walks", "walked", "talk", "talks", "talked", "jump", "jumps", "jumped",
       "climb", "climbs", "climbed", "##ing", "##er", "кот", "дом", "лес", "мир"]  # fmt: skip
NEW = [*SPECIAL, "jumped", "walker", "walk", "walking", "дома", "кот", "swim", "##ing", "climber",
       "talks", "talking", "лесами", "jumper", "леса", "talkers", "climbing", "walkers", "##ed",
       "swims", "мира", "домов", "котами"]  # fmt: skip
METHODS = ["mean", "ofa", "map", "script"]


def tokenizer_folder(folder: Path, words: list[str]) -> Path:
    backend = Backend(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[MASK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", **names)
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    return {n: tokenizer_folder(root / n, words) for n, words in (("old", OLD), ("new", NEW))}


def swap(model: Any, folders: dict[str, Path], **options: Any) -> Any:
    new = str(folders["new"])
    step = {"type": "swap_vocabulary", "tokenizer": new, **options}
    context = TransformContext(name=str(folders["old"]))
    torch.manual_seed(0)
    return apply_steps(model, parse_transforms(repr([step]), "t"), "t", context)


KINDS = ["llama", "qwen2", "gpt2", "bert", "roberta", "bart", "t5", "modernbert"]


@pytest.mark.quick_share(9)
@pytest.mark.parametrize("by", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_known_tokens_keep_their_rows(kind: str, by: str, folders: dict[str, Path]) -> None:
    """In tables, output layers and biases: the logits of known tokens in a known text are equal."""
    old, model = tiny(kind, vocab_size=len(OLD)), tiny(kind, vocab_size=len(OLD))
    swap(model, folders, by=by)
    shared = [word for word in NEW if word in OLD]
    before = torch.tensor([[OLD.index(word) for word in shared]])
    after = torch.tensor([[NEW.index(word) for word in shared]])
    new_logits = logits(model, after)
    assert new_logits.shape[-1] == len(NEW) == model.config.vocab_size
    torch.testing.assert_close(new_logits[..., after[0]], logits(old, before)[..., before[0]])
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    tied = old.get_output_embeddings().weight is old.get_input_embeddings().weight
    assert (head.weight is table.weight) == tied
    assert table.num_embeddings == head.out_features == len(NEW)


def test_the_same_vocabulary_changes_nothing(folders: dict[str, Path]) -> None:
    old, model = tiny("bert", vocab_size=len(OLD)), tiny("bert", vocab_size=len(OLD))
    swap(model, {"old": folders["old"], "new": folders["old"]})
    assert torch.equal(logits(model), logits(old))


def rows_of(model: Any, words: list[str], names: list[str]) -> torch.Tensor:
    weight: torch.Tensor = model.get_input_embeddings().weight.detach()
    return weight[[words.index(name) for name in names]]


@pytest.mark.parametrize("k", [1, 3, 99])
def test_mixes_stay_in_the_hull_of_old_rows(k: int, folders: dict[str, Path]) -> None:
    from sensorium.engine.model.transforms.vocabulary.pieces import ngram_features
    from sensorium.engine.model.transforms.vocabulary.swap import mixes

    new = [word for word in NEW if word not in OLD]
    matrix = mixes(ngram_features(OLD), ngram_features(new), k, 0.1)
    shares = torch.from_numpy(matrix.toarray())
    assert bool((shares >= 0).all()) and bool(((shares > 0).sum(1) <= k).all())
    torch.testing.assert_close(shares.sum(1), torch.ones(len(new)))
    model = tiny("llama", vocab_size=len(OLD))
    old = model.get_input_embeddings().weight.detach().clone()
    swap(model, folders, by="ofa", k=k)
    mixed = rows_of(model, NEW, new)
    low, high = old.min(0).values - 1e-5, old.max(0).values + 1e-5
    assert bool(((mixed >= low) & (mixed <= high)).all())
    if k == 1:  # one neighbour: each new row is an old one
        nearest = torch.cdist(mixed, old).min(1).values
        torch.testing.assert_close(nearest, torch.zeros_like(nearest), atol=2e-3, rtol=0)


def test_vectors_of_tokens_may_come_from_a_file(folders: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(0)
    new = torch.randn(len(NEW), 8)
    old = torch.randn(len(OLD), 8)
    old[OLD.index("лес")] = new[NEW.index("swim")]
    save_file({"old": old, "new": new}, tmp_path / "v.safetensors")
    model = tiny("llama", vocab_size=len(OLD))
    before = rows_of(model, OLD, ["лес"])
    swap(model, folders, by="ofa", k=1, vectors=str(tmp_path / "v.safetensors"))
    torch.testing.assert_close(rows_of(model, NEW, ["swim"]), before)
    save_file({"old": old, "new": new[1:].clone()}, tmp_path / "v.safetensors")
    with pytest.raises(ConfigError, match=r"vectors: new is \(25, 8\), expected a row for each"):
        swap(tiny("llama", vocab_size=len(OLD)), folders, vectors=str(tmp_path / "v.safetensors"))


@pytest.mark.parametrize("by", ["ofa", "map"])
def test_held_out_tokens_are_nearer_their_truth_than_random(by: str) -> None:
    """Rows made of their characters: stems and endings of a small language, a fifth held out."""
    from sensorium.engine.model.transforms.vocabulary.pieces import ngram_features
    from sensorium.engine.model.transforms.vocabulary.swap import mixes, ridge

    torch.manual_seed(0)
    parts = [[f"{a}{b}" for a in "bdfgk" for b in "aeiou"], ["lan", "mir", "tos", "vek", "zum"]]
    codes = {part: torch.randn(12) for group in parts for part in group}
    words = [f"{a}{b}" for a in parts[0] for b in parts[1]]
    truth = torch.stack([codes[w[:2]] + codes[w[2:]] for w in words])
    held = [i for i in range(len(words)) if i % 5 == 2]
    rest = [i for i in range(len(words)) if i % 5 != 2]
    old, new = (ngram_features([words[i] for i in chosen]) for chosen in (rest, held))
    rows = truth[rest]
    guess = (
        torch.from_numpy(mixes(old, new, 10, 0.1) @ rows.numpy())
        if by == "ofa"
        else ridge(old, rows, new)
    )
    draws = rows.mean(0) + rows.std(0) * torch.randn(len(held), rows.shape[1])
    similar = torch.cosine_similarity(guess, truth[held]).mean()
    assert similar > torch.cosine_similarity(draws, truth[held]).mean() + 0.3


def test_scripts_have_statistics_of_their_own(folders: dict[str, Path]) -> None:
    model = tiny("llama", vocab_size=len(OLD))
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        for word in ("кот", "дом", "лес", "мир"):
            table[OLD.index(word)] += 100
    swap(model, folders, by="script")
    assert bool((rows_of(model, NEW, ["домов", "леса", "мира"]) > 50).all())
    assert bool((rows_of(model, NEW, ["swim", "walker"]) < 50).all())


def test_a_small_model_of_the_new_language_is_mapped(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Where the large rows are a linear map of the small ones, all are recovered."""
    small = tiny("gpt2", vocab_size=len(NEW), n_embd=4, n_head=2)
    small.save_pretrained(tmp_path / "small")
    torch.manual_seed(1)
    large, model = torch.randn(4, 16), tiny("llama", vocab_size=len(OLD))
    mapped = small.get_input_embeddings().weight.detach() @ large
    with torch.no_grad():
        for i, word in enumerate(NEW):
            if word in OLD:
                model.get_input_embeddings().weight[OLD.index(word)] = mapped[i]
    swap(model, folders, by="least_squares", small=str(tmp_path / "small"))
    torch.testing.assert_close(model.get_input_embeddings().weight.detach(), mapped)


@pytest.mark.parametrize("kind", KINDS)
def test_full_rank_is_exact_and_a_lower_one_the_nearest(kind: str) -> None:
    model, other = tiny(kind), tiny(kind)
    steps = parse_transforms("[{type: factorize_embeddings, rank: 16}]", "t")
    before = logits(model)
    apply_steps(model, steps, "t", TransformContext())
    torch.testing.assert_close(logits(model), before, atol=1e-4, rtol=1e-4)
    lower = parse_transforms("[{type: factorize_embeddings, rank: 3}]", "t")
    old = other.get_input_embeddings().weight.detach().clone()
    tied = other.get_output_embeddings().weight is other.get_input_embeddings().weight
    apply_steps(other, lower, "t", TransformContext())
    values = torch.linalg.svdvals(old)
    error = (other.get_input_embeddings().weight - old).square().sum().sqrt()
    torch.testing.assert_close(error, values[3:].square().sum().sqrt())
    head = other.get_output_embeddings()
    assert torch.equal(head.weight, other.get_input_embeddings().weight) == tied


def test_shared_factors_stay_while_rows_of_a_new_script_train(folders: dict[str, Path]) -> None:
    model = tiny("bert", vocab_size=len(OLD))
    steps = parse_transforms("[{type: factorize_embeddings, rank: 4}]", "t")
    apply_steps(model, steps, "t", TransformContext())
    old = rows_of(model, OLD, ["кот"])
    swap(model, folders, by="ofa")
    torch.testing.assert_close(rows_of(model, NEW, ["кот"]), old)
    table = model.get_input_embeddings()
    factors = table.parametrizations.weight
    assert factors.original0.shape == (len(NEW), 4) and factors.original1.shape == (4, 16)
    before = factors.original1.detach().clone()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith("original0"))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    logits_ = model(torch.tensor([[5, 6]])).logits
    logits_.sum().backward()
    optimizer.step()
    assert torch.equal(factors.original1, before)
    assert not torch.equal(rows_of(model, NEW, ["кот"]), old)


def test_a_converted_folder_opens_with_the_new_tokenizer(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    tiny("bert", vocab_size=len(OLD)).save_pretrained(tmp_path / "bert")
    tokenizer_folder(tmp_path / "bert", OLD)
    text = f"[{{type: swap_vocabulary, tokenizer: '{folders['new']}'}}]"
    model = convert(tmp_path / "bert", parse_transforms(text, "t"), tmp_path / "out")
    again = AUTO["bert"].from_pretrained(tmp_path / "out")
    assert again.config.vocab_size == len(NEW)
    assert torch.equal(logits(again.eval()), logits(model))
    assert pieces(read_tokenizer(str(tmp_path / "out"), TransformContext()))[5] == " walker"


def test_a_recipe_takes_another_tokenizer(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"text": "walk", "answer": "walking"}\n')
    tiny("llama", vocab_size=len(OLD)).save_pretrained("llama")
    tokenizer_folder(Path("llama"), OLD)
    part = {
        "name": "llama",
        "weights": "pretrained",
        "options": {},
        "tokenizer": {"type": "pretrained", "name": str(folders["new"])},
    }
    with pytest.raises(ConfigError, match="has 26 ids, llama embeds 22"):
        compose(resolve_and_fit(parse_recipe(recipe(part))))
    part["transforms"] = [{"type": "swap_vocabulary"}]
    model = compose(resolve_and_fit(parse_recipe(recipe(part))))
    backbone: Any = model.backbone
    reference = swap(tiny("llama", vocab_size=len(OLD)), folders)
    ids = torch.tensor([[5, 6]])
    torch.testing.assert_close(backbone.model(ids).logits, reference(ids).logits)
    save_run(model, Path("run"))
    Path("llama").rename("gone")
    folders["new"].rename(folders["new"].with_name("moved"))
    try:
        loaded: Any = load_model("run").backbone
    finally:
        folders["new"].with_name("moved").rename(folders["new"])
    assert torch.equal(loaded.table.weight, backbone.table.weight)
    backbone.add_tokens(2)
    assert backbone.logits(backbone.embed(torch.tensor([[27]]))).shape[-1] == 28


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"type": "swap_vocabulary", "by": "small"}, "'mean' | 'ofa'"),
        ({"type": "swap_vocabulary", "by": "least_squares"}, "small: belongs to"),
        ({"type": "swap_vocabulary", "k": 0}, "expected numbers above 0"),
        ({"type": "swap_vocabulary", "source": "nowhere-at-all"}, "none at 'nowhere-at-all'"),
        ({"type": "factorize_embeddings", "rank": 17}, "expected one of 1 to 16"),
    ],
)
def test_what_does_not_fit_is_refused(
    step: dict[str, Any], message: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if step["type"] == "swap_vocabulary":
        step = {"tokenizer": str(folders["new"]), **step}
    context = TransformContext(name=str(folders["old"]))
    with pytest.raises(ConfigError, match=message):
        apply_steps(tiny("llama", vocab_size=22), parse_transforms(repr([step]), "t"), "t", context)


def test_embeddings_alone_train(runner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first half of recycling: `train_only: embeddings` leaves every layer as it was."""
    monkeypatch.chdir(runner.folder)
    Path("rows.jsonl").write_text('{"text": "walk", "answer": "walking"}\n' * 4)
    values = recipe({"train_only": "embeddings"})
    begun = compose(resolve_and_fit(parse_recipe(values))).backbone
    trained = runner.train(values, "run").backbone
    assert begun is not None
    before, after = begun.state_dict(), trained.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"model.model.embed_tokens.weight"}
