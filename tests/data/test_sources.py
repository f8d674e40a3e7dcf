"""Text files and folders, the standard library, and TFDS datasets."""

import os
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from etils import epath

from moe_jax.data import open_data
from moe_jax.data.sources import open_source, stdlib
from moe_jax.data.sources.text import TextFileSource, open_text
from moe_jax.data.tokenizers import ByteTokenizer
from moe_jax.errors import UserError


def documents(source, split):
    """The texts of a split, one string a document."""
    texts = []
    for chunk in source.texts(split):
        texts[len(texts) :] = [""] if chunk.starts_document else []
        texts[-1] += chunk.text
    return texts


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return epath.Path(path)


def test_folder_is_divided_by_file_whatever_else_is_there(config, corpus):
    source = open_text(config.data)
    held_out = documents(source, "validation")
    texts = documents(source, "train") + held_out
    assert sorted(texts) == sorted(path.read_text() for path in corpus.iterdir())
    assert 3 <= len(held_out) <= 25
    write(corpus / "more" / "new.txt", b"new\n")
    again = documents(open_text(config.data), "validation")
    assert set(held_out) <= set(again) <= {*held_out, "new\n"}


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_two_documents_are_one_on_each_side(config, tmp_path, fraction):
    for name in "ab":
        write(tmp_path / "two" / name, name.encode())
    config.data.path = str(tmp_path / "two")
    config.data.validation_fraction = fraction
    source = open_text(config.data)
    sides = [documents(source, split) for split in ("train", "validation")]
    assert sorted(sides[0] + sides[1]) == ["a", "b"]
    assert [len(side) for side in sides] == [1, 1]


def test_single_file_is_cut_after_a_line(config, tmp_path):
    text = "".join(f"line {i} é\n" for i in range(100))
    config.data.path = str(write(tmp_path / "a.txt", text.encode()))
    source = open_text(config.data)
    [train], [held_out] = documents(source, "train"), documents(source, "validation")
    assert train + held_out == text
    assert train.endswith("\n")
    assert 0.15 < len(held_out) / len(text) <= 0.2


@pytest.mark.parametrize("text", ["é" * 50, "a" * 99 + "é", "x\n" + "字" * 60])
def test_file_without_lines_is_cut_between_characters(tmp_path, text):
    path = write(tmp_path / "a.txt", text.encode())
    for fraction in (0.1, 0.5, 0.51, 0.52, 0.9):
        source = TextFileSource(path, fraction)
        sides = documents(source, "train") + documents(source, "validation")
        assert len(sides) == 2
        assert "".join(sides) == text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a", "too few to hold out"),
        (b"abc\ndef\0", "has a NUL at byte 7"),
        (b"abc\n\xffdef", "byte 4 is 0xff"),
        ("é".encode("utf-16"), "byte 0 is 0xff"),
    ],
)
def test_file_that_is_no_text_is_one_line(config, tmp_path, content, message):
    config.data.path = str(write(tmp_path / "a.txt", content))
    with pytest.raises(UserError, match=message) as error:
        open_text(config.data)
    assert str(tmp_path / "a.txt") in str(error.value)


def test_bad_file_of_a_folder_is_named(config, corpus):
    write(corpus / "deep" / "x.bin", b"\x89PNG\r\n")
    with pytest.raises(UserError, match=r"x\.bin is not UTF-8 text: byte 0 is 0x89"):
        open_text(config.data)


def test_hidden_files_and_empty_ones_are_no_documents(config, corpus):
    before = open_text(config.data).key
    write(corpus / ".git" / "blob", b"\0")
    os.symlink(corpus, corpus / "loop")
    assert open_text(config.data).key == before


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of 40 modules, and what is left out of it."""
    root = tmp_path / "lib"
    for i in range(40):
        write(root / f"m{i}.py", f"value = {i}\n".encode() * 20)
    write(root / "package" / "inner.py", b"inner = 1\n")
    for name in ("test/a.py", "json/tests/b.py", "site-packages/c.py"):
        write(root / name, b"left_out = 1\n")
    write(root / "latin.py", b"# caf\xe9\n")
    write(root / "_sysconfigdata__linux.py", b"left_out = 2\n")
    monkeypatch.setattr(stdlib, "stdlib_root", lambda: root)
    return root


def test_standard_library_is_its_sources_without_tests(config, library, tmp_path):
    source = stdlib.StdlibSource(tmp_path / "cache")
    train, held_out = (documents(source, split) for split in ("train", "validation"))
    texts = train + held_out
    kept = [*library.glob("m*.py"), library / "package" / "inner.py"]
    assert sorted(texts) == sorted(path.read_text() for path in kept)
    assert 1 <= len(held_out) < len(train)


def test_standard_library_is_a_tfds_dataset_of_array_records(library, tmp_path):
    source = stdlib.StdlibSource(tmp_path / "cache")
    documents(source, "train")
    [info] = (tmp_path / "cache" / "stdlib").rglob("dataset_info.json")
    builder = tfds.builder_from_directory(info.parent)
    assert builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD
    assert set(builder.info.splits) == {"train", "validation"}
    example = builder.as_data_source("train")[0]
    path = example["path"].decode()
    assert example["text"].decode() == (library / path).read_text()


def test_another_python_or_another_text_shares_nothing(library, tmp_path, monkeypatch):
    first = stdlib.StdlibSource(tmp_path).key
    monkeypatch.setattr(sys, "version_info", (3, 99, 0, "final", 0))
    second = stdlib.StdlibSource(tmp_path).key
    write(library / "m0.py", b"value = 'changed'\n")
    third = stdlib.StdlibSource(tmp_path).key
    assert len({first, second, third}) == 3


def test_python_without_sources_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(stdlib, "stdlib_root", lambda: tmp_path)
    with pytest.raises(UserError, match="no Python sources in"):
        stdlib.StdlibSource(tmp_path)


class TinyText(tfds.core.GeneratorBasedBuilder):
    """Sixty short texts with a number beside each."""

    VERSION = tfds.core.Version("1.0.0")
    code_path = None

    def _info(self):
        features = {"text": tfds.features.Text(), "n": tfds.features.Scalar(np.int32)}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(60):
            yield i, {"text": f"text number {i} é\n", "n": i}


@pytest.fixture
def tfds_config(config, tmp_path):
    config.data.source = "tfds"
    config.data.name = "tiny_text"
    config.data.path = str(tmp_path / "tfds")
    config.data.train_split = "train[:80%]"
    config.data.validation_split = "train[80%:]"
    return config


def test_tfds_dataset_is_prepared_and_read_without_tensorflow(tfds_config, tmp_path):
    source = open_source(tfds_config.data, tmp_path)
    train, held_out = (documents(source, split) for split in ("train", "validation"))
    assert (len(train), len(held_out)) == (48, 12)
    assert sorted(train + held_out) == sorted(f"text number {i} é\n" for i in range(60))
    assert open_data(tfds_config).eval_sets["validation"].num_bytes > 0
    assert "tensorflow" not in sys.modules


def test_prepared_tfds_dataset_is_read_as_it_is(tfds_config, tmp_path, monkeypatch):
    key = open_source(tfds_config.data, tmp_path).key
    monkeypatch.setattr(TinyText, "download_and_prepare", pytest.fail)
    assert open_source(tfds_config.data, tmp_path).key == key


def test_dataset_prepared_as_tfrecord_names_the_command(tfds_config, tmp_path):
    source = open_source(tfds_config.data, tmp_path)
    source._builder.info.set_file_format("tfrecord", override=True)
    source._builder.info.write_to_directory(source._builder.data_dir)
    with pytest.raises(
        UserError, match=r"prepared as tfrecord.*`tfds build tiny_text "
    ):
        open_source(tfds_config.data, tmp_path)


def test_builder_that_needs_tensorflow_names_the_command(
    tfds_config, tmp_path, monkeypatch
):
    def generate(self):
        import tensorflow  # noqa: F401

        yield

    monkeypatch.setattr(TinyText, "_generate_examples", generate)
    with pytest.raises(UserError, match=r"could not be prepared here.*`tfds build"):
        open_source(tfds_config.data, tmp_path)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "", "needs data.name"),
        ("name", "tiny_txt", "no TFDS dataset.*did you mean tiny_text"),
        ("path", "gs://bucket", "read from a local disk"),
        ("train_split", "learn", "has no split 'learn'; it has train"),
        ("validation_split", "train[70%:]", "share examples"),
        ("text_key", "txt", "'txt' is no feature.*it has n, text|text, n"),
        ("text_key", "n", "is no text but"),
    ],
)
def test_wrong_tfds_fields_are_one_line(tfds_config, tmp_path, field, value, message):
    tfds_config.data[field] = value
    with pytest.raises(UserError, match=message) as error:
        open_source(tfds_config.data, tmp_path)
    assert "\n" not in str(error.value)


def test_long_documents_stream_in_chunks(tmp_path):
    text = "some words\n" * 300_000
    path = write(tmp_path / "long.txt", text.encode())
    chunks = list(TextFileSource(path, 0.01).chunks("train", ByteTokenizer()))
    assert len(chunks) > 2
    assert [chunk.starts_document for chunk in chunks] == [True] + [False] * (
        len(chunks) - 1
    )
    assert max(len(chunk.ids) for chunk in chunks) < 2 << 20
