"""Models of a user's own: counted, routed, tried, trained and resumed as the decoder is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from own_models import GPT2, LOSS, PLAIN, TIED

from tuneopt import outside
from tuneopt.optim.routing import model_roles
from tuneopt.scale_files import ModelFile, find_scale
from tuneopt.spec import InputError, OwnModel, Regime, TrialSpec
from tuneopt.training.config import ParallelConfig
from tuneopt.training.loop import Training
from tuneopt.training.own_model import build, fill, loss_of, measure

MUON = {"momentum": 0.95, "muon_epsilon": 1e-5, "muon_to_adam_lr": 0.3, "lr_schedule": "linear", "decay": 0.8}


def measured(folder: Path, text: str, **about) -> OwnModel:
    (folder / "mine.py").write_text(text)
    scale = measure(ModelFile(f"{folder / 'mine.py'}:build", **about))
    assert isinstance(scale, OwnModel)
    return scale


def gpt2(folder: Path, **arguments) -> OwnModel:
    pytest.importorskip("transformers", reason="transformers is not installed")
    return measured(folder, GPT2, arguments=tuple(arguments.items()))


def test_parameters_are_counted_on_the_model_and_tokens_follow(tmp_path):
    scale = measured(tmp_path, PLAIN, arguments=(("depth", 3),))
    assert scale.name == "mine,depth=3" and (scale.ladder, scale.seq_len) == ("nano", 32)
    assert scale.parameters == 3 * 2 * 32 * 64  # what is neither table, head, bias nor norm
    assert scale.total_parameters(300) == sum(p.numel() for p in build(scale, 300, 0).parameters())
    assert scale.flops_per_token(300) == 6 * (scale.parameters + 32 * 300)
    assert Regime(scale, 1.0, replace_corpus()).tokens == 20 * scale.parameters


def replace_corpus():
    from tuneopt.spec import CorpusId

    return CorpusId("text", "00ff", 300)


def test_a_transformers_gpt2_has_the_parameters_of_the_decoder_of_its_shape(tmp_path):
    scale = gpt2(tmp_path)
    like = find_scale("2x32,seq=32,heads=2,family=gpt2")
    assert scale.parameters == like.parameters
    assert scale.total_parameters(512) == like.total_parameters(512)


def test_embedding_and_head_are_told_by_the_vocabulary_whatever_they_are_called(tmp_path):
    scale = measured(tmp_path, PLAIN)
    roles = {name: role.kind for name, role in model_roles(build(scale, 100, 0), scale).items()}
    assert (roles["table"], roles["proj.weight"]) == ("embedding", "head")
    assert {roles[f"{part}.0.weight"] for part in ("up", "down")} == {"matrix"}
    assert {roles["up.0.bias"], roles["scale.0"]} == {"vector"}


@pytest.mark.parametrize("text", [TIED, GPT2], ids=["functional", "gpt2"])
def test_a_tied_head_is_the_embedding(tmp_path, text):
    if text == GPT2:
        pytest.importorskip("transformers", reason="transformers is not installed")
    scale = measured(tmp_path, text)
    assert [kind for _, kind in scale.tables] == ["embedding"]
    assert scale.entry == scale.width == 32


def test_patterns_change_roles_and_fused_weights_have_pieces(tmp_path):
    scale = gpt2(tmp_path)
    changed = measured(tmp_path, GPT2, routing=(("c_attn.weight", "matrix*3"), ("mlp.c_proj.weight", "vector")))
    roles = {name: (role.kind, role.pieces) for name, role in model_roles(build(changed, 100, 0), changed).items()}
    assert roles["transformer.h.0.attn.c_attn.weight"] == ("matrix", 3)
    assert roles["transformer.h.1.mlp.c_proj.weight"] == ("vector", 1)
    assert changed.parameters == scale.parameters - 2 * 32 * 128  # N counts matrices
    assert changed != scale


@pytest.mark.parametrize(
    ("pattern", "role", "sentence"),
    [
        ("table", "matrix", "table follows the vocabulary \\(embedding\\) and is no matrix"),
        ("proj", "matrix", "proj.weight follows the vocabulary \\(head\\)"),
        ("bias", "matrix", "has shape \\(64,\\) and is no matrix"),
        ("gate", "vector", "no trained parameter fits the pattern 'gate'"),
        ("up", "matrx", "unknown role 'matrx' of a parameter; did you mean 'matrix'"),
        ("up", "vector*3", "is no role"),
        ("(", "vector", "is no pattern of parameter names"),
    ],
)
def test_roles_that_cannot_be_are_refused(tmp_path, pattern, role, sentence):
    with pytest.raises(InputError, match=sentence):
        measured(tmp_path, PLAIN, routing=((pattern, role),))


TAIL = "\n\ndef build(vocab_size, **more):\n"
REFUSED = {
    "no vocabulary": ("def build(size):\n    pass\n", "must take vocab_size"),
    "no use of it": (PLAIN + TAIL + "    return Mixer(64)\n", "no parameter of the model follows vocab_size"),
    "no module": (TAIL + "    return 3\n", "returned int and must return a torch.nn.Module"),
    "no function": ("builds = 1\n", "has no function 'build'; define one"),
    "its own seed": (
        PLAIN + TAIL + "    torch.manual_seed(0)\n    return Mixer(vocab_size)\n",
        "models of two seeds are equal",
    ),
    "no seed": (
        PLAIN + TAIL + "    model = Mixer(vocab_size)\n    import os\n    model.table.data.add_(os.urandom(1)[0])\n"
        "    global n\n    n = globals().get('n', 0) + 1\n    model.table.data.fill_(float(n))\n    return model\n",
        "two models of one seed differ",
    ),
    "half": (PLAIN + TAIL + "    return Mixer(vocab_size).bfloat16()\n", "build the model in float32"),
    "dropout": (PLAIN.replace("x = self.table[tokens]", "x = F.dropout(self.table[tokens], 0.1)"), "set its dropout"),
    "future": (PLAIN.replace("y.cumsum(1)", "y.sum(1, keepdim=True)"), "logits see tokens that come later"),
    "a sum": (
        LOSS.replace("targets.flatten())", "targets.flatten(), reduction='sum')"),
        "must be the mean over tokens",
    ),
    "no logits": (PLAIN.replace("return self.proj(x)", "return x[:, -1]"), "must give logits of shape"),
    "fails": (PLAIN.replace("up(y + mean)", "up(y[..., :3])"), "the model fails on tokens of shape \\(2, 32\\)"),
    "memory of itself": (
        PLAIN + TAIL + "    model = Mixer(vocab_size)\n    up = model.up[0]\n"
        "    up.weight = nn.Parameter(up.weight[:1].detach().expand_as(up.weight))\n    return model\n",
        "up.0.weight shares memory with itself",
    ),
    "memory of another": (
        PLAIN + TAIL + "    model = Mixer(vocab_size)\n    up = model.up[0]\n    number = up.weight.numel()\n"
        "    flat = torch.randn(number + 1) * 0.1\n    up.weight = nn.Parameter(flat[:number].view_as(up.weight))\n"
        "    up.bias = nn.Parameter(flat[number + 1 - up.bias.numel() :])\n    return model\n",
        "up.0.bias shares memory with up.0.weight",
    ),
    "a late parameter": (
        PLAIN.replace(
            "x = self.table[tokens]", "self.late = nn.Parameter(torch.ones(1))\n        x = self.table[tokens]"
        ),
        "makes or replaces late as it computes",
    ),
    "nothing to keep": (
        PLAIN + TAIL + "    model = Mixer(vocab_size)\n"
        "    model._register_state_dict_hook(lambda module, kept, *more: [kept.pop('table')].clear())\n"
        "    return model\n",
        "state_dict leaves out table",
    ),
    "nothing to load": (
        PLAIN + TAIL + "    model = Mixer(vocab_size)\n"
        "    model._register_load_state_dict_pre_hook(lambda *more: 1 / 0)\n    return model\n",
        "does not load its own state_dict: ZeroDivisionError",
    ),
    "not made yet": (
        PLAIN + TAIL + "    model = Mixer(vocab_size)\n    model.up[0] = nn.LazyLinear(64)\n    return model\n",
        "the model of build cannot be tried: ",
    ),
    "an end": (PLAIN + TAIL + "    raise GeneratorExit\n", "cannot be tried: GeneratorExit"),
    "an error without words": (
        "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\n" + TAIL + "    raise Odd\n",
        "failed: Odd",
    ),
    "sparse": (
        PLAIN + TAIL + "    model = Mixer(vocab_size)\n    model.rows = nn.Embedding(vocab_size, 32, sparse=True)\n"
        "    plain = model.forward\n    def forward(tokens):\n"
        "        return plain(tokens) + model.rows(tokens).sum(-1, keepdim=True)\n"
        "    model.forward = forward\n    return model\n",
        "the gradient of rows.weight is sparse",
    ),
    "silent": (
        PLAIN.replace("self.proj = nn", "self.spare = nn.Linear(2, 2)\n        self.proj = nn"),
        "no gradient reaches spare.weight",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_trials_could_not_rely_on_is_refused_in_a_sentence(tmp_path, case):
    text, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence) as caught:
        measured(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_views_of_one_memory_that_do_not_meet_are_parameters_like_others(tmp_path):
    text = (
        PLAIN + TAIL + "    model = Mixer(vocab_size)\n    up = model.up[0]\n    side = up.weight.shape[1]\n"
        "    flat = torch.randn(len(up.weight), side + 1) * 0.1\n    up.weight = nn.Parameter(flat[:, :side])\n"
        "    up.bias = nn.Parameter(flat[:, side])\n    return model\n"
    )
    assert measured(tmp_path, text).parameters == measured(tmp_path, PLAIN).parameters


def test_arguments_are_those_of_the_function(tmp_path):
    with pytest.raises(InputError, match="takes no argument 'widht'; did you mean 'width'"):
        measured(tmp_path, PLAIN, arguments=(("widht", 64),))


def test_a_file_that_imports_its_neighbour_is_refused(tmp_path):
    (tmp_path / "helper.py").write_text("")
    with pytest.raises(InputError, match="imports helper beside it"):
        measured(tmp_path, "import helper\n" + PLAIN)


def spec_of(make_spec, scale: OwnModel, optimizer: str, **changes) -> TrialSpec:
    spec = make_spec(optimizer, **changes)
    return replace(spec, regime=replace(spec.regime, scale=scale, ratio=0.25))


def finish(training: Training) -> Training:
    while not training.finished:
        training.advance()
    return training


@pytest.mark.parametrize(("optimizer", "changes"), [("adamw", {}), ("muon", MUON)])
@pytest.mark.parametrize("text", [PLAIN, TIED, LOSS, GPT2], ids=["plain", "tied", "loss", "gpt2"])
def test_models_of_ones_own_learn_and_their_optimizers_are_proven(
    tmp_path, corpus, make_spec, text, optimizer, changes
):
    if text == GPT2:
        pytest.importorskip("transformers", reason="transformers is not installed")
    training = finish(Training(spec_of(make_spec, measured(tmp_path, text), optimizer, **changes), corpus, None))
    assert training.final_losses is not None and training.final_losses[0] < training.curve[0].select_loss - 0.2
    assert training.proof is not None and training.proof["passed"], training.proof
    rules = {route.parameter: route.rule for route in training.optimizer.routing}
    tables = dict(training.spec.regime.scale.tables)
    assert tables and all(rules[name] == "adamw" for name in tables)
    if optimizer == "muon":
        matrices = [name for name, rule in rules.items() if rule == "muon"]
        assert len(matrices) == (8 if text == GPT2 else 4)


def test_the_proof_does_not_believe_a_routing_that_nobody_asked_for(tmp_path, corpus, make_spec):
    scale = measured(tmp_path, PLAIN)
    training = Training(spec_of(make_spec, scale, "muon", **MUON), corpus, None)
    # The trial's file gives the head to AdamW; an optimizer that gave it to Muon must not pass.
    from tuneopt.optim import create
    from tuneopt.optim.proof import UpdateCheck
    from tuneopt.optim.routing import role_rules
    from tuneopt.training.building import LOOP_HYPERPARAMETERS

    roles = model_roles(training.model, scale)
    rules = list(role_rules((), roles))
    rules = [replace(rule, rule="main") if "proj" in rule.pattern else rule for rule in rules]
    own = {name: value for name, value in training.spec.config.items() if name not in LOOP_HYPERPARAMETERS}
    training.optimizer = create("muon", training.model, rules=rules, **own)
    training.peak_rates = [float(group["lr"]) for group in training.optimizer.param_groups]
    training.strategy.load(training.optimizer, None)
    training.update_check = UpdateCheck.of_trial(training.spec, training.optimizer, training.model)
    finish(training)
    assert training.proof is not None and training.proof["status"] == "failed"
    assert any(not check["passed"] and "head" in check["name"] for check in training.proof["checks"])


@pytest.mark.parametrize("text", [PLAIN, pytest.param(GPT2, marks=pytest.mark.slow)], ids=["plain", "gpt2"])
def test_a_run_that_is_resumed_ends_with_the_same_bits(tmp_path, corpus, make_spec, text):
    if text == GPT2:
        pytest.importorskip("transformers", reason="transformers is not installed")
    spec = spec_of(make_spec, measured(tmp_path, text), "muon", **MUON)
    whole = finish(Training(spec, corpus, None))
    first = Training(spec, corpus, tmp_path / "checkpoints")
    while first.update_check is not None:
        first.train_step()
    first.save()
    second = finish(Training(spec, corpus, tmp_path / "checkpoints"))
    assert second.resumes == 1 and second.final_losses == whole.final_losses


def test_seeds_decide_weights_and_warm_models_forget(tmp_path):
    scale = measured(tmp_path, PLAIN)
    state = torch.random.get_rng_state()
    first, second = build(scale, 50, 0), build(scale, 50, 1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not torch.equal(first.table, second.table)
    fill(second, scale, 50, 0)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_ids_hash_the_file_and_what_it_is_called_with(tmp_path, make_spec):
    first = spec_of(make_spec, measured(tmp_path, PLAIN), "adamw")
    wider = spec_of(make_spec, measured(tmp_path, PLAIN, arguments=(("width", 64),), name="mine"), "adamw")
    edited = spec_of(make_spec, measured(tmp_path, PLAIN + "# a comment\n"), "adamw")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = spec_of(make_spec, measured(elsewhere, PLAIN), "adamw")
    assert len({first.id, wider.id, edited.id}) == 3 and moved.id == first.id
    again = TrialSpec.from_dict(first.to_dict())
    assert again == first and again.id == first.id and isinstance(again.regime.scale, OwnModel)


def test_a_worker_builds_the_model_from_the_text_that_came_along(tmp_path, make_spec, monkeypatch):
    spec = spec_of(make_spec, measured(tmp_path, PLAIN), "adamw")
    texts = outside.sources_of(spec)
    assert texts == {spec.regime.scale.model: PLAIN}
    monkeypatch.setattr(outside, "SOURCES", {})  # as in a process on another machine
    (tmp_path / "mine.py").unlink()
    with pytest.raises(InputError, match="is not at hand; give the file"):
        build(spec.regime.scale, 50, 0)
    outside.adopt_all(texts)
    assert build(spec.regime.scale, 50, 0).table.shape == (50, 32)


def test_losses_are_those_of_the_logits(tmp_path):
    logits, loss = (build(measured(tmp_path, text), 50, 0) for text in (PLAIN, LOSS))
    tokens = torch.randint(50, (2, 9))
    first, second = (loss_of(model)(tokens[:, :-1], tokens[:, 1:]).item() for model in (logits, loss))
    assert first == pytest.approx(second, rel=1e-6)


def test_what_needs_the_inside_of_a_model_is_refused_at_once(tmp_path):
    from tuneopt import api
    from tuneopt.api.own_models import check_on_model

    scale = measured(tmp_path, PLAIN)
    for optimizer, sentence in (("sophia", "takes second derivatives"), ("adam_mini", "asks for the heads")):
        with pytest.raises(InputError, match=sentence):
            check_on_model(api.space_of(optimizer).on("nano"), scale)
    with pytest.raises(InputError, match="ZeRO cannot cut up"):
        ParallelConfig(2, 3).check_model(scale)
    with pytest.raises(InputError, match="layers are not known"):
        ParallelConfig(1, 0, checkpointing=True).check_model(scale)
    assert api.placement_of(2, None, False, False, scale).zero == 0


def test_scale_files_name_models_with_their_arguments_and_roles(tmp_path):
    (tmp_path / "mine.py").write_text(PLAIN)
    (tmp_path / "scale.yaml").write_text(
        "model: mine.py:build\nname: wide\nseq_len: 16\narguments: {width: 64}\nrouting: {down: vector}\n"
    )
    from tuneopt.api.own_models import scale_named

    scale = scale_named(str(tmp_path / "scale.yaml"))
    assert isinstance(scale, OwnModel) and (scale.name, scale.seq_len) == ("wide", 16)
    assert dict(scale.arguments) == {"width": 64} and scale.routing == (("down", "vector"),)
    assert scale_named(str(tmp_path / "scale.yaml")) == scale
    with pytest.raises(InputError, match="here the name or the file of a scale is needed"):
        find_scale(str(tmp_path / "scale.yaml"))
    (tmp_path / "scale.yaml").write_text("model: mine.py:build\nlayers: 2\n")
    with pytest.raises(InputError, match=r"scale\.yaml:2: unknown key 'layers' of a scale with a model of its own"):
        scale_named(str(tmp_path / "scale.yaml"))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("arguments: 5", "scale.yaml:2: arguments must be a mapping, not 5; try"),
        ("arguments: 0", "scale.yaml:2: arguments must be a mapping, not 0; try"),
        ("arguments: true", "arguments must be a mapping, not True"),
        ("arguments: [1, 2]", "arguments must be a mapping, not a list"),
        ("routing: 5", "scale.yaml:2: routing must be a mapping, not 5; try"),
        ("seq_len: 16\narguments: {seq_len: 32}", "scale.yaml:3: the arguments have another seq_len than the scale"),
    ],
)
def test_arguments_and_roles_that_are_none_are_refused(tmp_path, lines, words):
    from tuneopt.api.own_models import scale_named

    (tmp_path / "mine.py").write_text(PLAIN)
    (tmp_path / "scale.yaml").write_text(f"model: mine.py:build\n{lines}\n")
    with pytest.raises(InputError) as refused:
        scale_named(str(tmp_path / "scale.yaml"))
    assert words in str(refused.value) and "\n" not in str(refused.value)
    (tmp_path / "scale.yaml").write_text("model: mine.py:build\nseq_len: 16\narguments: {seq_len: 16}\nrouting:\n")
    assert scale_named(str(tmp_path / "scale.yaml")).seq_len == 16
