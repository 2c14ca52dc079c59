"""SOAP after Vyas et al. (arXiv 2409.11321, algorithm 3) in the order of the study: one block at a time, float64.

The first moment stays in the original basis and is rotated anew each step, as in the paper, while the fast path keeps
it in the eigenbasis: the two agree because the bases are orthogonal.
"""

import math

import numpy as np


class Block:
    """One block of one matrix."""

    def __init__(self, shape):
        rows, columns = shape
        self.t = 0
        self.left = np.zeros((rows, rows))
        self.right = np.zeros((columns, columns))
        self.q_left = self.q_right = None
        self.m = np.zeros(shape)
        self.v = np.zeros(shape)

    def step(self, g, *, beta1, beta2, eps, shampoo_beta, frequency, count_first_step):
        self.t += 1
        if self.t == 1:
            self.average(g, shampoo_beta)
            self.q_left = np.linalg.eigh(self.left + eps * np.eye(len(self.left)))[1][:, ::-1]
            self.q_right = np.linalg.eigh(self.right + eps * np.eye(len(self.right)))[1][:, ::-1]
            return np.zeros_like(g)
        self.m = beta1 * self.m + (1 - beta1) * g
        rotated_g = self.q_left.T @ g @ self.q_right
        rotated_m = self.q_left.T @ self.m @ self.q_right
        self.v = beta2 * self.v + (1 - beta2) * rotated_g**2
        k = self.t if count_first_step else self.t - 1
        correction = math.sqrt(1 - beta2**k) / (1 - beta1**k)
        update = self.q_left @ (rotated_m / (np.sqrt(self.v) + eps)) @ self.q_right.T * correction
        if self.t % frequency == 0:
            self.refresh()
        self.average(g, shampoo_beta)
        return update

    def average(self, g, beta):
        self.left = beta * self.left + (1 - beta) * g @ g.T
        self.right = beta * self.right + (1 - beta) * g.T @ g

    def refresh(self):
        order = np.argsort(-np.diag(self.q_left.T @ self.left @ self.q_left), kind="stable")
        self.v = self.v[order, :]
        self.q_left = np.linalg.qr(self.left @ self.q_left[:, order])[0]
        order = np.argsort(-np.diag(self.q_right.T @ self.right @ self.q_right), kind="stable")
        self.v = self.v[:, order]
        self.q_right = np.linalg.qr(self.right @ self.q_right[:, order])[0]


def soap(start, steps, *, rates, block_size, weight_decay, **rule):
    """Parameters after all steps, and the blocks by parameter and position."""
    x = {name: value.copy() for name, value in start.items()}
    blocks = {name: {} for name in x}
    for gradients, rate in zip(steps, rates, strict=True):
        for name, matrix in x.items():
            update = np.zeros_like(matrix)
            for top in range(0, matrix.shape[0], block_size):
                for left in range(0, matrix.shape[1], block_size):
                    place = (slice(top, top + block_size), slice(left, left + block_size))
                    g = gradients[name][place]
                    block = blocks[name].setdefault((top, left), Block(g.shape))
                    update[place] = block.step(g, **rule)
            x[name] = matrix - rate * (update + weight_decay * matrix)
    return x, blocks
