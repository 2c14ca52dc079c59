"""Files with models of a user's own, as users write them."""

PLAIN = '''
import torch
import torch.nn.functional as F
from torch import nn


class Mixer(nn.Module):
    """Names tell nothing here: a table that is no Embedding, and a head called proj."""

    def __init__(self, vocab_size, seq_len=32, width=32, depth=2):
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocab_size, width) * 0.02)
        self.up = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(depth))
        self.down = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(depth))
        self.scale = nn.ParameterList(nn.Parameter(torch.ones(width)) for _ in range(depth))
        self.proj = nn.Linear(width, vocab_size, bias=False)

    def forward(self, tokens):
        x = self.table[tokens]
        for up, down, scale in zip(self.up, self.down, self.scale):
            y = F.rms_norm(x, x.shape[-1:], scale)
            mean = y.cumsum(1) / torch.arange(1, y.shape[1] + 1)[None, :, None]
            x = x + down(F.gelu(up(y + mean)))
        return self.proj(x)


build = Mixer
'''

TIED = PLAIN.replace("return self.proj(x)", "return F.linear(x, self.table)").replace(
    "        self.proj = nn.Linear(width, vocab_size, bias=False)\n", ""
)
"""The head is the table, with no module to show it."""

LOSS = PLAIN.replace("def forward(self, tokens):", "def forward(self, tokens, targets):").replace(
    "return self.proj(x)", "return F.cross_entropy(self.proj(x).flatten(0, 1), targets.flatten())"
)

GPT2 = """
from transformers import GPT2Config, GPT2LMHeadModel


def build(vocab_size, seq_len=32, layers=2, width=32, dropout=0.0):
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab_size, n_positions=seq_len, n_layer=layers, n_embd=width, n_head=2,
            resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout, bos_token_id=0, eos_token_id=0,
        )
    )
"""
