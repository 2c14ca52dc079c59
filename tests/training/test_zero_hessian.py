"""Sophia's pass over sequences of several blocks, on two ranks: the losses of one process at every stage."""

from dataclasses import replace
from pathlib import Path

import pytest
from zero_rank import Case, run_cases, step_losses
from zero_specs import OPTIMIZERS

from tuneopt.training.loop import Training
from tuneopt.training.memory import ATTENTION_ROWS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_long_sequences_train_as_in_one_process(corpus, module_spec, tmp_path: Path) -> None:
    """Hooks that ranks set on parameters must not run for gradients that are only a step towards an estimate."""
    spec = module_spec("sophia", ratio=1.0, train_batch_size=16, **OPTIMIZERS["sophia"])
    scale = replace(spec.regime.scale, name="long", seq_len=ATTENTION_ROWS + 44)
    spec = replace(spec, regime=replace(spec.regime, scale=scale))
    cases = [*(Case(spec, stage) for stage in (0, 1, 2, 3)), Case(spec, 2, checkpointing=True)]
    training = Training(spec, corpus, None)
    losses = step_losses(training, 10)
    assert training.optimizer.state[training.model.lm_head.weight]["hessian"].any(), "estimates after steps 4 and 8"
    assert losses[-1] < losses[0] - 0.05
    for case, result in zip(cases, run_cases(cases, 2, corpus, tmp_path), strict=True):
        assert result["losses"] == pytest.approx(losses, rel=1e-4), case
        assert result["proof"]["passed"], case
