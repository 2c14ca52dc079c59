"""ZeRO on two ranks: the losses of one process, proofs, sharded state, and checkpoints for any number of ranks."""

from dataclasses import replace
from pathlib import Path

import pytest
from zero_rank import Case, run_cases, step_losses
from zero_specs import OPTIMIZERS

from tuneopt.training.loop import Training
from tuneopt.training.memory import CHUNKED_VOCABULARY, chunk_tokens

STAGES = (1, 2, 3)
TOLERANCE = 1e-4

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def make(corpus, module_spec):
    return lambda name, **changes: module_spec(name, train_batch_size=16, **{**OPTIMIZERS[name], **changes})


@pytest.fixture(scope="module")
def sharded(corpus, make, tmp_path_factory):
    """Results by optimizer and stage, all from one process group of two ranks."""
    keys = [(name, stage) for name in OPTIMIZERS for stage in STAGES]
    cases = [Case(make(name), stage) for name, stage in keys]
    results = run_cases(cases, 2, corpus, tmp_path_factory.mktemp("cases"))
    return dict(zip(keys, results, strict=True))


@pytest.fixture(scope="module")
def whole(corpus, make):
    """The same trials in this process: losses, evaluation, names of checks and bytes of state."""
    found = {}
    for name in OPTIMIZERS:
        training = Training(make(name), corpus, None)
        losses = step_losses(training, 10)
        proof = training.proof or training.update_check.proof().to_dict()
        held_out = training.evaluate(final=True)
        found[name] = losses, held_out, proof, training.optimizer.state_bytes()
    return found


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_ranks_train_as_one_process(sharded, whole, name: str, stage: int) -> None:
    result, (losses, held_out, proof, state_bytes) = sharded[name, stage], whole[name]
    assert losses[-1] < losses[0] - 0.05, "the run must move, or equal losses show nothing"
    assert result["losses"] == pytest.approx(losses, rel=TOLERANCE)
    assert result["held_out"] == pytest.approx(held_out, rel=TOLERANCE)
    assert result["proof"]["passed"], [check for check in result["proof"]["checks"] if not check["passed"]]
    assert {check["name"] for check in result["proof"]["checks"]} == {check["name"] for check in proof["checks"]}
    assert max(result["state_bytes"]) <= 0.55 * state_bytes
    assert sum(result["state_bytes"]) == state_bytes
    assert result["freed"], "the next trial of the process needs the memory"


def test_offload_bf16_and_plain_data_parallel(corpus, make, tmp_path: Path) -> None:
    half = replace(make("muon"), precision="bf16")
    cases = [
        Case(make("muon"), 2, offload=True),
        Case(make("adamw"), 3, offload=True),
        Case(half, 2),
        Case(make("soap"), 0),
        Case(make("sophia"), 0),
        *(Case(make("adamw"), stage, deterministic=True) for stage in (0, *STAGES)),
    ]
    for case, result in zip(cases, run_cases(cases, 2, corpus, tmp_path), strict=True):
        training = Training(case.spec, corpus, None)
        # Compute in bf16 rounds each sum over a micro-batch to three digits, so its order shows earlier.
        tolerance = 2e-3 if case.spec.precision == "bf16" else TOLERANCE
        assert result["losses"] == pytest.approx(step_losses(training, 10), rel=tolerance), case
        assert result["proof"]["passed"], case
        assert result["repeats"] is case.deterministic and result["freed"], case


def test_heads_as_matrices_of_their_own(corpus, make, tmp_path: Path) -> None:
    """Each tensor has one owner, whose matrices the heads are; at stage 0 tensors are dealt out."""
    specs = [make(name, split_heads=True) for name in ("scion", "normuon", "muonh", "dion")]
    four = replace(specs[0].regime.scale, heads=4, kv_heads=2)
    specs = [replace(spec, regime=replace(spec.regime, scale=four)) for spec in specs]
    cases = [Case(spec, stage) for spec in specs for stage in (0, *STAGES)]
    results = list(zip(cases, run_cases(cases, 2, corpus, tmp_path), strict=True))
    for spec in specs:
        alone = step_losses(Training(spec, corpus, None), 10)
        for case, result in ((case, result) for case, result in results if case.spec == spec):
            assert result["losses"] == pytest.approx(alone, rel=TOLERANCE), case
            assert result["proof"]["passed"], case
            assert {"query", "key", "value", "output"} <= {c["name"].split(".")[1] for c in result["proof"]["checks"]}


@pytest.mark.parametrize("name", ["muon", "lion"])
def test_chunked_heads_checkpointing_and_many_buckets(corpus, make, tmp_path: Path, name: str) -> None:
    """What large models have: logits in chunks, activations computed twice, and owners that step bucket by bucket."""
    identity = replace(corpus.id, vocab_size=CHUNKED_VOCABULARY)
    large = replace(make(name), regime=replace(make(name).regime, corpus=identity))
    training = Training(large, corpus, None)
    assert chunk_tokens(training.micro_batch * large.regime.scale.seq_len, CHUNKED_VOCABULARY) is not None
    cases = [Case(large, stage, checkpointing=again, bucket=2048) for stage in STAGES for again in (False, True)]
    alone = step_losses(training, 10)
    assert alone[-1] < alone[0] - 0.05
    for case, result in zip(cases, run_cases(cases, 2, corpus, tmp_path), strict=True):
        assert result["losses"] == pytest.approx(alone, rel=TOLERANCE), case
        assert result["proof"]["passed"], case


def test_checkpoints_go_on_at_any_number_of_ranks(corpus, make, tmp_path: Path) -> None:
    names = ("muon", "soap", "mars")
    plain = {name: step_losses(Training(make(name), corpus, None), 10) for name in names}
    for name in names:  # one process saves, ranks go on
        training = Training(make(name), corpus, tmp_path / f"plain-{name}")
        step_losses(training, 5)
        training.save()

    def cases(kind: str, stage: int, **options):
        return [Case(make(name), stage, 5, folder=tmp_path / f"{kind}-{name}", **options) for name in names]

    two = run_cases(cases("two", 2, save=True), 2, corpus, tmp_path)
    one = run_cases([*cases("two", 2), *cases("one", 2, save=True), *cases("plain", 1)], 1, corpus, tmp_path)
    back = run_cases([*cases("one", 2), *cases("one", 3), *cases("plain", 3)], 2, corpus, tmp_path)
    for number, name in enumerate(names):
        first, rest = plain[name][:5], plain[name][5:]
        assert two[number]["losses"] == pytest.approx(first, rel=TOLERANCE)
        for results in (one, back):
            continued = [result for result in results if result["case"] == name and result["resumed"] == 5]
            assert len(continued) == (2 if results is one else 3)
            for result in continued:
                assert result["losses"] == pytest.approx(rest, rel=TOLERANCE)
                assert result["proof"]["passed"]
        alone = Training(make(name), corpus, tmp_path / f"two-{name}")  # ranks saved, one process goes on
        assert alone.step == 5 and alone.resumes == 1
        assert step_losses(alone, 5) == pytest.approx(rest, rel=TOLERANCE)
