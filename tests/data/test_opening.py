"""`open_data`: cached, identified by content, clear about wrong fields."""

import concurrent.futures
import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading

import pytest

from moe_jax.data import open_data, rows
from moe_jax.data.cache import build_once
from moe_jax.errors import UserError


def refused(config, message):
    with pytest.raises(UserError, match=message) as error:
        open_data(config)
    assert "\n" not in str(error.value)


def test_second_opening_builds_nothing(config, monkeypatch):
    first = open_data(config)
    monkeypatch.setattr(rows, "_write", lambda *_: pytest.fail("packed again"))
    assert open_data(config).fingerprint == first.fingerprint


def test_fingerprint_is_of_content_not_of_place(config, corpus, tmp_path):
    first = open_data(config).fingerprint
    shutil.copytree(corpus, tmp_path / "moved")
    config.data.path = str(tmp_path / "moved")
    config.data.cache_dir = str(tmp_path / "other_cache")
    assert open_data(config).fingerprint == first


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sequence_length", 8),
        ("isolate_documents", False),
        ("validation_fraction", 0.4),
        ("glob", "*[0-5].txt"),
    ],
)
def test_fingerprint_follows_what_a_batch_may_hold(config, field, value):
    first = open_data(config).fingerprint
    config.data[field] = value
    assert open_data(config).fingerprint != first


def test_changed_text_is_packed_anew(config, corpus):
    first = open_data(config).fingerprint
    (corpus / "00.txt").write_text("other words\n" * 5)
    assert open_data(config).fingerprint != first


def test_description_counts_the_corpus(config, corpus):
    counts = open_data(config).description["sources"]["validation"]
    files = list(corpus.iterdir())
    both = [counts["train"], counts["validation"]]
    assert sum(c["documents"] for c in both) == len(files)
    assert sum(c["bytes"] for c in both) == sum(f.stat().st_size for f in files)
    for split in both:
        assert split["tokens"] == split["bytes"] + 2 * split["documents"]
    assert both[0]["rows"] == (both[0]["tokens"] - 1) // 16
    assert both[1]["rows"] == -(-(both[1]["tokens"] - 1) // 16)


def test_a_build_cut_short_leaves_nothing_behind(config, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rows, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_data(config)
    monkeypatch.undo()
    assert not [p for p in (tmp_path / "cache" / "rows").iterdir() if p.is_dir()]
    assert next(open_data(config).train_batches(0))["tokens"].shape == (8, 16)


@pytest.mark.parametrize("locks_work", [True, False])
def test_builders_at_once_agree_and_leave_one_copy(tmp_path, monkeypatch, locks_work):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    def build(folder):
        together.wait(timeout=30)
        (folder / "whole").write_text("content")
        builds.append(folder)

    builds = []
    target = tmp_path / "target"
    # With a lock one builds and the others wait; without, all are at it at once.
    together = threading.Barrier(1 if locks_work else 3)
    if not locks_work:
        monkeypatch.setattr(fcntl, "flock", no_locks)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: build_once(target, build), range(3)))
    assert len(builds) == (1 if locks_work else 3)
    assert (target / "whole").read_text() == "content"
    assert not list(tmp_path.glob(".target.*.partial"))


def test_leftovers_of_a_killed_build_are_removed(tmp_path):
    leftover = tmp_path / ".target.0123.partial"
    leftover.mkdir()
    build_once(tmp_path / "target", lambda folder: None)
    assert not leftover.exists()


def test_lost_shard_is_one_line(config, tmp_path):
    open_data(config)
    next((tmp_path / "cache").rglob("train-00000.arrayrecord")).unlink()
    refused(config, r"train-00000.arrayrecord is gone; delete .* to build it anew")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.source", "wiki", "data.source='wiki' is unknown; choose from stdlib"),
        ("data.path", "", "needs data.path"),
        ("data.path", "/no/such", "data.path=/no/such does not exist"),
        ("data.glob", "*.md", r"no file matches data.glob='\*.md'"),
        ("data.glob", "00.txt", "two are needed, one to hold out"),
        ("data.validation_fraction", 0.0, "=0.0 is not between 0 and 1"),
        ("data.validation_fraction", 1.0, "=1.0 is not between 0 and 1"),
        ("data.sequence_length", 0, "data.sequence_length=0 is not positive"),
        ("train.batch_size", 0, "train.batch_size=0 is not positive"),
        ("seed", -1, "seed=-1 is not in"),
        ("data.cache_dir", "gs://bucket", "not a local folder"),
        ("data.cache_dir", "/proc/none", "cannot be written"),
    ],
)
def test_wrong_fields_are_one_line(config, field, value, message):
    config.update_from_flattened_dict({field: value})
    refused(config, message)


def test_short_text_says_how_many_tokens_and_what_would_work(config, tmp_path):
    (tmp_path / "short.txt").write_text("0123456789\n" * 5)
    config.data.path = str(tmp_path / "short.txt")
    config.data.sequence_length = 64
    refused(config, r"train split has 46 tokens.*sequence_length=32 would work")
    config.data.sequence_length = 32
    assert open_data(config).eval_sets["validation"].num_bytes == 11


def test_no_tensorflow_and_no_waiting_thread(config):
    """Even for the TFDS source; and the process ends without `close`."""
    code = (
        "import sys\n"
        "from configs import base\n"
        "from moe_jax.data import open_data\n"
        "from moe_jax.data.sources import stdlib\n"
        "from pathlib import Path\n"
        "stdlib.stdlib_root = lambda: Path(sys.argv[1])\n"
        "config = base.get_config()\n"
        "config.data.cache_dir = sys.argv[2]\n"
        "config.data.sequence_length = 8\n"
        "batches = open_data(config).train_batches(0)\n"
        "print(next(batches)['tokens'].shape, 'tensorflow' in sys.modules)\n"
    )
    root = os.path.join(config.data.cache_dir, "lib")
    os.makedirs(root)
    for name in "abc":
        with open(os.path.join(root, f"{name}.py"), "w") as file:
            file.write(f"{name} = 1\n" * 9)
    done = subprocess.run(
        [sys.executable, "-c", code, root, config.data.cache_dir],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "(16, 8) False"


def test_wrong_source_of_a_mixture_is_named(config):
    config.data.mixture = (
        {"label": "good", "weight": 1},
        {"label": "bad", "weight": 1, "path": "/no/such"},
    )
    refused(config, "data.mixture 'bad': data.path=/no/such does not exist")
