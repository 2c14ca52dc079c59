"""PSGD with Kronecker factors after Li (arXiv 2211.04422) in the form of the study; one block at a time, float64.

Factors are dense inverses and plain products here. Tensors that are no hidden matrices have diagonal factors, one for
each of their dimensions. ``probe(name, t)`` gives the random numbers of a step in the shape of the parameter.
"""

import math

import numpy as np

MACHINE = 2.0**-23


def chance(t, floor, flat_start):
    return min(1.0, max(floor, math.exp(-0.001 * (t - flat_start))))


def norm_estimate(symmetric):
    """The lower bound of the spectral norm from the column of largest norm."""
    high = np.abs(symmetric).max()
    if high == 0:
        return 0.0
    scaled = symmetric / high
    column = scaled[:, np.argmax((scaled**2).sum(axis=0))]
    image = column @ scaled
    return high * np.linalg.norm((image / np.linalg.norm(image)) @ scaled.T)


class Block:
    """One block of one hidden matrix, with triangular factors."""

    def __init__(self, shape, scale):
        self.left, self.right = math.sqrt(scale) * np.eye(shape[0]), math.sqrt(scale) * np.eye(shape[1])

    def balance(self):
        high = np.abs(self.left).max(), np.abs(self.right).max()
        mean = math.exp((math.log(high[0]) + math.log(high[1])) / 2)
        self.left, self.right = self.left * mean / high[0], self.right * mean / high[1]

    def fit(self, g, v, lr):
        a = self.left @ g @ self.right.T
        b = np.linalg.inv(self.left).T @ v @ np.linalg.inv(self.right)
        moves = []
        for q, seen, drawn in ((self.left, a @ a.T, b @ b.T), (self.right, a.T @ a, b.T @ b)):
            moves.append(lr / norm_estimate(seen + drawn) * np.triu(seen - drawn) @ q)
        self.left, self.right = self.left - moves[0], self.right - moves[1]

    def precondition(self, m):
        return self.left.T @ self.left @ m @ self.right.T @ self.right


class Diagonals:
    """A whole tensor of one or two dimensions, with a vector for each."""

    def __init__(self, shape, scale):
        self.q = [scale ** (1 / len(shape)) * np.ones(size) for size in shape]

    def spread(self, power):
        product = self.q[0] ** power
        return product if len(self.q) == 1 else np.outer(product, self.q[1] ** power)

    def balance(self):
        high = [np.abs(q).max() for q in self.q]
        mean = math.exp(sum(math.log(each) for each in high) / len(high))
        self.q = [q * mean / each for q, each in zip(self.q, high, strict=True)]

    def fit(self, g, v, lr):
        a, b = (self.spread(1) * g) ** 2, (v / self.spread(1)) ** 2
        axes = [()] if len(self.q) == 1 else [1, 0]
        moved = []
        for q, axis in zip(self.q, axes, strict=True):
            seen, drawn = a.sum(axis=axis), b.sum(axis=axis)
            moved.append(q - lr / np.abs(seen + drawn).max() * (seen - drawn) * q)
        self.q = moved

    def precondition(self, m):
        return self.spread(2) * m


def kron(
    start,
    steps,
    *,
    rates,
    beta1,
    factor_lr,
    init_scale,
    floor,
    flat_start,
    block_size,
    normalize,
    weight_decay,
    decays,
    hidden,
    probe,
):
    """Parameters after all steps, the blocks by parameter and place, and the steps on which factors were fitted."""
    x = {name: value.copy() for name, value in start.items()}
    m = {name: np.zeros_like(value) for name, value in start.items()}
    blocks = {name: {} for name in x}
    fits, counter, balance_counter = [], 0, 0
    for t, (gradients, rate) in enumerate(zip(steps, rates, strict=True), start=1):
        counter += 1
        due = counter >= 1 / chance(t, floor, flat_start)
        if due:
            counter, balance_counter = 0, balance_counter + 1
            fits.append(t)
        balance = due and balance_counter >= 100
        balance_counter = 0 if balance else balance_counter
        for name in x:
            g = gradients[name]
            g = g / (np.linalg.norm(g) + 1e-16) if normalize else g
            m[name] = beta1 * m[name] + (1 - beta1) * g
            m_hat = m[name] / (1 - beta1**t)
            v = probe(name, t) if due else None
            damping = math.sqrt(MACHINE) * np.abs(m_hat).mean()
            update = np.zeros_like(m_hat)
            for place in places(x[name].shape, block_size if hidden(name) else None):
                kind = Block if hidden(name) else Diagonals
                block = blocks[name].setdefault(str(place), kind(m_hat[place].shape, init_scale))
                if balance:
                    block.balance()
                if due:
                    block.fit(m_hat[place] + damping * v[place], v[place], factor_lr)
                update[place] = block.precondition(m_hat[place])
            rms = math.sqrt((update**2).mean())
            decay = weight_decay * x[name] if decays(name) else 0.0
            x[name] = x[name] - rate * (update / max(1.0, rms / 1.1) + decay)
    return x, blocks, fits


def places(shape, block_size):
    """Where the blocks of a tensor lie; the whole of it without a block size."""
    if block_size is None:
        return [tuple(slice(0, size) for size in shape)]
    corners = [range(0, size, block_size) for size in shape]
    return [(slice(top, top + block_size), slice(left, left + block_size)) for top in corners[0] for left in corners[1]]
