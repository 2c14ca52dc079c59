"""The parity problem: one parameter of every class, 24 fixed gradients, all from numpy in float64."""

import numpy as np

SHAPES = {
    "embed_tokens.weight": (24, 16),
    "layers.0.self_attn.q_proj.weight": (16, 16),
    "layers.0.self_attn.k_proj.weight": (16, 16),
    "layers.0.mlp.gate_proj.weight": (64, 16),
    "layers.0.mlp.up_proj.weight": (64, 16),
    "layers.0.mlp.down_proj.weight": (16, 64),
    "layers.0.self_attn.q_proj.bias": (16,),
    "layers.0.input_layernorm.weight": (16,),
    "norm.weight": (16,),
    "lm_head.weight": (24, 16),
}
STEPS = 24


def decays(name):
    """Matrices and the head decay; norms, biases and the embedding do not."""
    return len(SHAPES[name]) == 2 and not name.startswith("embed")


def hidden(name):
    """What a matrix rule moves."""
    return "proj.weight" in name


def square(name):
    """Hidden matrices that are square, whose factors have full rank after one gradient."""
    return "self_attn" in name and hidden(name)


def start():
    rng = np.random.default_rng(1)
    return {name: 0.02 * rng.standard_normal(shape) for name, shape in SHAPES.items()}


def gradients():
    """Gradients whose joint norm is on both sides of 1, so that clipping is on in some steps and off in others."""
    rng = np.random.default_rng(2)
    result = []
    for step in range(STEPS):
        size = 0.05 if step % 3 else 0.005
        result.append({name: size * rng.standard_normal(shape) for name, shape in SHAPES.items()})
    return result


def schedule(step):
    """Warmup, then falling: rates relative to the peak."""
    return min(1.0, (step + 1) / 4) * (1 - step / (2 * STEPS))
