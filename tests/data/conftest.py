"""A small corpus, and configs that read it."""

import numpy as np
import pytest

from configs import base

WORDS = [
    "router",
    "expert",
    "token",
    "gate",
    "capacity",
    "slot",
    "load",
    "balance",
    "é",
    "字",
    "dropped",
]


@pytest.fixture
def corpus(tmp_path):
    """A folder of 60 small documents, some with characters of several bytes."""
    rng = np.random.RandomState(0)
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(60):
        words = rng.choice(WORDS, rng.randint(5, 60))
        (folder / f"{i:02d}.txt").write_text(f"{i}\n" + " ".join(words) + "\n")
    return folder


@pytest.fixture
def config(tmp_path, corpus):
    """An experiment on that corpus, with a cache of its own."""
    config = base.get_config()
    config.data.source = "text"
    config.data.path = str(corpus)
    config.data.validation_fraction = 0.2
    config.data.sequence_length = 16
    config.data.cache_dir = str(tmp_path / "cache")
    config.train.batch_size = 8
    config.train.eval_batch_size = 4
    config.train.eval_batches = 3
    return config
