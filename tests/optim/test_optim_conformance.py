"""The three optimizers pass the suite that third parties inherit."""

import pytest
import torch

from tuneopt.optim import SOAP, AdamW, Muon
from tuneopt.optim.testing import OptimizerConformance


class TestAdamW(OptimizerConformance):
    def make(self, params, **overrides):
        return AdamW(params, **overrides)


class TestMuon(OptimizerConformance):
    def make(self, params, **overrides):
        return Muon(params, **overrides)


class TestMuonInBf16(OptimizerConformance):
    def make(self, params, **overrides):
        return Muon(params, ns_precision="bf16", **overrides)


class TestSOAP(OptimizerConformance):
    def make(self, params, **overrides):
        return SOAP(params, **overrides)


class TestSOAPInUnevenBlocks(OptimizerConformance):
    def make(self, params, **overrides):
        return SOAP(params, block_size=5, precondition_frequency=2, bias_correction="updates", **overrides)


class Forgetful(AdamW):
    """Writes no state: a suite that cannot fail would let it pass."""

    def state_dict(self):
        return {**super().state_dict(), "state": {}}


def test_the_suite_catches_a_state_dict_without_state():
    class Suite(OptimizerConformance):
        def make(self, params, **overrides):
            return Forgetful(params, **overrides)

    with pytest.raises(AssertionError):
        Suite().test_state_dict_resumes_bit_for_bit()


def test_the_suite_catches_decay_of_norms():
    class Suite(OptimizerConformance):
        def make(self, params, **overrides):
            optimizer = AdamW(params, **overrides)
            for group in optimizer.param_groups:
                group["weight_decay"] = 0.5
            return optimizer

    with pytest.raises(AssertionError):
        Suite().test_norms_and_embeddings_do_not_decay()


def test_plain_suite_asks_for_make():
    with pytest.raises(AttributeError, match="override make"):
        OptimizerConformance().make([("w", torch.zeros(2, 2))])
