"""Adafactor and T5's learning rate as loops over steps, in float64."""

import numpy as np


def t5_rate(update, base, warmup):
    """base / sqrt(max(t, warmup)) of update number t, from 1."""
    return base / np.sqrt(max(update, warmup))


class Adafactor:
    """One tensor's Adafactor: Shazeer and Stern 2018, algorithms 4 and 5.

    With relative step sizes given from outside, as T5 uses it. A tensor of two axes
    is a matrix [rows, columns]; one of another rank is not factored.
    """

    def __init__(self, param, min_dim=128, decay=0.8, clip=1.0):
        self.param = np.array(param, np.float64)
        self.decay, self.clip, self.updates = decay, clip, 0
        shape = self.param.shape
        self.factored = len(shape) == 2 and min(shape) >= min_dim
        if self.factored:
            self.rows, self.columns = np.zeros(shape[0]), np.zeros(shape[1])
        else:
            self.squares = np.zeros(shape)

    def step(self, gradient, rate, epsilon1=1e-30, epsilon2=1e-3):
        self.updates += 1
        beta2 = 1 - self.updates**-self.decay
        gradient = np.asarray(gradient, np.float64)
        square = gradient**2 + epsilon1
        if self.factored:
            self.rows = beta2 * self.rows + (1 - beta2) * square.sum(axis=1)
            self.columns = beta2 * self.columns + (1 - beta2) * square.sum(axis=0)
            second_moment = np.outer(self.rows, self.columns) / self.rows.sum()
        else:
            self.squares = beta2 * self.squares + (1 - beta2) * square
            second_moment = self.squares
        update = gradient / np.sqrt(second_moment)
        update = update / max(1, rms(update) / self.clip)
        self.param = self.param - rate * max(epsilon2, rms(self.param)) * update


def rms(values):
    return np.sqrt(np.mean(values**2))
