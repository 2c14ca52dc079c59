"""A trial's final model in transformers: same logits, same losses, same tokens; kept, or trained again."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from zero_specs import OPTIMIZERS

from tuneopt import api
from tuneopt.data import Corpus
from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.ledger.folders import has_folder
from tuneopt.spec import InputError
from tuneopt.training.batches import HeldOut
from tuneopt.training.config import ParallelConfig
from tuneopt.training.ranks import Ranks
from tuneopt.training.run import TrialRun, run_ranks, run_trial
from tuneopt.training.weights import kept_weights

TEXTS = ["the white whale", " never  over\n\nthe sea", "Größe, 海 and a\ttab", "<|endoftext|>", ""]


def losses_in_transformers(folder: Path, corpus: Corpus, record: TrialRecord) -> tuple[float, float]:
    """The final losses of a trial's specification, computed by transformers alone."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()

    def loss(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(tokens).logits.flatten(0, 1), targets.flatten())

    return HeldOut.of(corpus, record.spec, Ranks(0, 1, torch.device("cpu"))).losses(loss, final=True)


@pytest.fixture(scope="module")
def trained(corpus: Corpus, module_spec, tmp_path_factory: pytest.TempPathFactory):
    """A trial that kept its weights, with the model as it was when it ended."""
    run = TrialRun(module_spec(), corpus, Ledger(tmp_path_factory.mktemp("kept")), keep_weights=True)
    while run.record is None:
        run.advance()
    return run


def test_transformers_gives_the_same_logits_and_losses(trained: TrialRun, corpus: Corpus, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    done = api.export_model(trained.record.trial[:6], tmp_path / "model", trained.ledger)
    assert done.trial == trained.record.trial and "model.safetensors" in done.files
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    tokens = torch.randint(corpus.id.vocab_size, (8, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = trained.training.model(tokens), model(tokens).logits
    assert theirs.dtype == torch.float32
    assert (ours - theirs).abs().max() < 1e-5 * ours.abs().max()
    found = losses_in_transformers(tmp_path / "model", corpus, trained.record)
    assert found == pytest.approx((trained.record.select_loss, trained.record.report_loss), rel=1e-6)
    assert trained.record.select_loss < trained.record.initial_loss - 0.1, "an untrained model would show little"
    assert model.config.max_position_embeddings == 32 and not model.config.tie_word_embeddings
    assert TrialRecord.from_json((tmp_path / "model" / "trial.json").read_bytes()) == trained.record


def test_transformers_gives_the_same_tokens(trained: TrialRun, corpus: Corpus, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    api.export_model(trained.record.trial, tmp_path / "model", trained.ledger)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == corpus.tokenizer.token_to_id("<|endoftext|>")
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        if text != "<|endoftext|>":  # a document's text cannot forge it, a prompt may name it
            assert ids == corpus.tokenizer.encode(text).ids
        assert tokenizer.decode(ids) == text


def test_an_export_goes_into_a_new_folder_alone(trained: TrialRun, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty; name a new folder"):
        api.export_model(trained.record.trial, tmp_path / "there", trained.ledger)
    with pytest.raises(InputError, match="not empty"):
        api.export_model(trained.record.trial, tmp_path / "there" / "mine.txt", trained.ledger)
    with pytest.raises(InputError, match="known: hf"):
        api.export_model(trained.record.trial, tmp_path / "new", trained.ledger, to="onnx")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.txt", "there"]
    (tmp_path / "empty").mkdir()
    api.export_model(trained.record.trial, tmp_path / "empty", trained.ledger)
    assert (tmp_path / "empty" / "config.json").is_file()


def test_a_trial_without_kept_weights_is_trained_again(
    trained: TrialRun, module_spec, corpus: Corpus, tmp_path: Path, monkeypatch
) -> None:
    def load(source: str, *, vocab_size: int) -> Corpus:
        if source != "my-text" or vocab_size != corpus.id.vocab_size:
            raise InputError("no such text")
        return corpus

    monkeypatch.setattr("tuneopt.data.load_corpus", load)
    monkeypatch.setenv("TUNEOPT_CACHE", str(tmp_path / "cache"))
    ledger = Ledger(tmp_path / "ledger")
    record = run_trial(module_spec(), corpus, ledger)
    assert not (tmp_path / "ledger" / "weights").exists(), "weights are kept for those who ask"
    with pytest.raises(InputError, match="add --retrain to train it again"):
        api.export_model(record.trial, tmp_path / "model", ledger)
    with pytest.raises(InputError, match="name the very text it was trained on with --corpus"):
        api.export_model(record.trial, tmp_path / "model", ledger, retrain=True)
    fingerprint = {"corpus": {"fingerprint": corpus.id.fingerprint}}
    ledger.put_sweep("some", {"regime": fingerprint, "corpus_source": "my-text"})
    done = api.export_model(record.trial, tmp_path / "model", ledger, retrain=True)
    assert done.retrained_select_loss == record.select_loss
    kept = trained.ledger.files.root / kept_weights(record.trial)
    again, first = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", kept))
    assert again.keys() == first.keys() and all(torch.equal(again[name], first[name]) for name in first)
    assert not (tmp_path / "cache" / "retrained" / record.trial).exists()
    assert ledger.get(record.trial) == record
    assert api.export_model(record.trial, tmp_path / "twice", ledger).retrained_select_loss is None


def test_a_diverged_trial_has_no_model(module_spec, corpus: Corpus, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    spec = module_spec(learning_rate=1e30, max_grad_norm=0, warmup=0)
    record = run_trial(spec, corpus, ledger, keep_weights=True)
    assert record.status == "diverged" and not has_folder(ledger, kept_weights(spec.id))
    with pytest.raises(InputError, match="diverged, so it has no final weights"):
        api.export_model(record.trial, tmp_path / "model", ledger)


@pytest.mark.slow
@pytest.mark.parametrize("zero", [0, 2, 3])
@pytest.mark.parametrize("optimizer", ["muon", "schedule_free", "sf_muon"])
def test_ranks_keep_the_model_that_they_shard(
    module_spec, corpus: Corpus, tmp_path: Path, optimizer: str, zero: int
) -> None:
    """That of the losses: under Schedule-Free the average, and not what trains."""
    ledger = Ledger(tmp_path / "ledger")
    spec = replace(module_spec(optimizer, **OPTIMIZERS[optimizer]), seed=zero)
    record = run_ranks(spec, corpus, ledger, ParallelConfig(2, zero), keep_weights=True)
    api.export_model(record.trial, tmp_path / "model", ledger)
    found = losses_in_transformers(tmp_path / "model", corpus, record)
    assert found == pytest.approx((record.select_loss, record.report_loss), rel=1e-6)
    assert not ledger.checkpoint_dir(spec.id).exists(), "the checkpoint that brought the weights together is gone"
