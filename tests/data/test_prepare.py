"""Preparing a corpus: one result from every format, whole or not at all."""

import gzip
import json
import os
import pathlib
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from moe_jax.data import corpus, open_data, prepare
from moe_jax.data.prepare import Preparation
from moe_jax.data.sources.prepared import PreparedSource
from moe_jax.errors import UserError

TEXTS = [f"document {i} é\n" + "expert token router\n" * (i % 7) for i in range(40)]
LINES = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS)


def write_txt(folder):
    for i, text in enumerate(TEXTS):
        (folder / f"{i:02d}.txt").write_text(text)


def write_txt_gz(folder):
    for i, text in enumerate(TEXTS):
        (folder / f"{i:02d}.txt.gz").write_bytes(gzip.compress(text.encode()))


def write_jsonl(folder):
    (folder / "a.jsonl").write_text(LINES)


def write_jsonl_gz(folder):
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))


def write_jsonl_zst(folder):
    half = len(LINES.splitlines(keepends=True)[0])
    frames = [LINES[:half].encode(), LINES[half:].encode()]  # as `cat a b` makes
    packed = b"".join(zstandard.ZstdCompressor().compress(frame) for frame in frames)
    (folder / "a.jsonl.zst").write_bytes(packed)


def write_parquet(folder):
    pq.write_table(pa.table({"text": TEXTS, "n": range(40)}), folder / "a.parquet")


FORMATS = [
    write_txt,
    write_txt_gz,
    write_jsonl,
    write_jsonl_gz,
    write_jsonl_zst,
    write_parquet,
]


def run(tmp_path, write=write_jsonl, name="out", **options):
    folder = tmp_path / f"in_{name}"
    folder.mkdir(exist_ok=True)
    write(folder)
    output = tmp_path / name
    return prepare.prepare(Preparation([str(folder)], str(output), **options)), output


def documents(folder, split):
    source = PreparedSource(str(folder))
    texts = []
    for chunk in source.chunks(split, source.tokenizer):
        texts[len(texts) :] = [[]] if chunk.starts_document else []
        texts[-1].extend(chunk.ids.tolist())
    return [source.tokenizer.decode(ids) for ids in texts]


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_gives_the_same_documents(tmp_path, write):
    manifest, folder = run(tmp_path, write)
    reference, _ = run(tmp_path, write_jsonl, "reference")
    assert manifest["fingerprint"] == reference["fingerprint"]
    sides = documents(folder, "train"), documents(folder, "validation")
    assert sorted(sides[0] + sides[1]) == sorted(TEXTS)
    assert min(len(side) for side in sides) >= 1


def test_manifest_counts_what_the_shards_hold(tmp_path):
    manifest, folder = run(tmp_path, shard_tokens=500)
    assert json.loads((folder / "manifest.json").read_text()) == manifest
    train = manifest["splits"]["train"]
    texts = documents(folder, "train")
    assert train["documents"] == len(texts)
    assert train["bytes"] == train["tokens"] == sum(len(t.encode()) for t in texts)
    count = len(train["shards"])
    assert count >= 3
    assert train["shards"][1] == f"train-00001-of-{count:05d}.arrayrecord"
    listed = {name for split in manifest["splits"].values() for name in split["shards"]}
    assert {path.name for path in folder.iterdir()} == listed | {"manifest.json"}


def test_shard_size_does_not_change_the_fingerprint(tmp_path):
    few, _ = run(tmp_path)
    many, _ = run(tmp_path, name="many", shard_tokens=100)
    assert few["fingerprint"] == many["fingerprint"]


def test_trained_tokenizer_travels_with_the_data(tmp_path, config):
    manifest, folder = run(tmp_path, tokenizer="sentencepiece", train_vocab_size=300)
    assert manifest["tokenizer"]["vocab_size"] == 300
    sides = documents(folder, "train") + documents(folder, "validation")
    assert sorted(sides) == sorted(TEXTS)
    config.data.update(source="arrayrecord", path=str(folder))
    config.data.tokenizer = "sentencepiece"
    data = open_data(config)
    assert data.tokenizer.fingerprint == manifest["tokenizer"]["fingerprint"]
    assert next(data.train_batches(0))["tokens"].max() < 300
    config.train.eval_batches = 1000
    held_out = open_data(config).eval_sets["validation"]
    assert held_out.num_bytes == manifest["splits"]["validation"]["bytes"]


def test_tokenizer_is_not_trained_on_held_out_text(tmp_path, monkeypatch):
    seen = []

    def train(texts, vocab_size):
        seen.extend(texts)
        return original(seen, vocab_size)

    original = prepare.train_sentencepiece
    monkeypatch.setattr(prepare, "train_sentencepiece", train)
    _, folder = run(tmp_path, tokenizer="sentencepiece", train_vocab_size=300)
    assert sorted(seen) == sorted(documents(folder, "train"))


def test_prepared_rows_equal_those_of_the_text(tmp_path, config):
    """The same documents, so the same rows up to the order of documents."""
    _, folder = run(tmp_path, write_txt)
    config.data.update(source="arrayrecord", path=str(folder))
    counts = open_data(config).description["sources"]["validation"]
    texts = documents(folder, "train")
    assert counts["train"]["tokens"] == sum(len(t.encode()) + 2 for t in texts)
    assert counts["train"]["documents"] == len(texts)


def test_single_document_is_divided_after_a_line(tmp_path):
    text = "".join(f"line {i}\n" for i in range(200))

    def write(folder):
        (folder / "book.txt").write_text(text)

    _, folder = run(tmp_path, write, validation_fraction=0.1)
    [train], [held_out] = documents(folder, "train"), documents(folder, "validation")
    assert train + held_out == text
    assert train.endswith("\n")
    assert len(held_out) / len(text) == pytest.approx(0.1, abs=0.01)


def test_duplicates_fall_on_one_side(tmp_path):
    def write(folder):
        lines = [json.dumps({"text": f"text {i % 10}"}) for i in range(100)]
        (folder / "a.jsonl").write_text("\n".join(lines))

    _, folder = run(tmp_path, write, validation_fraction=0.4)
    assert not set(documents(folder, "train")) & set(documents(folder, "validation"))


@pytest.mark.parametrize("field", ["data.tokenizer", "data.tokenizer_path"])
def test_other_tokenizer_than_the_prepared_one_is_one_line(tmp_path, config, field):
    _, folder = run(tmp_path, tokenizer="sentencepiece", train_vocab_size=300)
    config.data.update(source="arrayrecord", path=str(folder))
    message = "data.tokenizer='bytes', but the data was prepared with 'sentencepiece'"
    if field == "data.tokenizer_path":
        options = {"tokenizer": "sentencepiece", "train_vocab_size": 310}
        _, other = run(tmp_path, name="other", **options)
        config.data.tokenizer = "sentencepiece"
        config.data.tokenizer_path = str(other / "tokenizer.model")
        message = "was prepared with tokenizer"
    with pytest.raises(UserError, match=message):
        open_data(config)


def test_damaged_folders_are_one_line(tmp_path, config):
    manifest, folder = run(tmp_path)
    config.data.update(source="arrayrecord", path=str(tmp_path))
    with pytest.raises(UserError, match=r"has no manifest\.json of prepared data"):
        open_data(config)
    config.data.path = str(folder)
    shard = folder / manifest["splits"]["train"]["shards"][0]
    shard.rename(tmp_path / "away")
    with pytest.raises(UserError, match=f"{shard.name} is gone"):
        open_data(config)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 0}))
    with pytest.raises(UserError, match="prepared in format 0"):
        open_data(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 1.5}, "validation_fraction=1.5 is not between"),
        ({"tokenizer": "words"}, "--tokenizer=words is unknown"),
        ({"shard_tokens": 0}, "--shard_tokens=0 is not positive"),
        ({"train_vocab_size": 300}, "needs --tokenizer=sentencepiece"),
        ({"text_key": "body"}, "line 1 has no text under --text_key=body; .*text, n"),
        ({"inputs": ["/no/*.txt"]}, r"--input=/no/\*.txt: no such file"),
        ({"output": "gs://bucket/out"}, "is not a local folder"),
        ({"output": "/tmp"}, "--output=/tmp exists"),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(tmp_path, options, message):
    write_jsonl(tmp_path)
    given = {"inputs": [str(tmp_path / "*.jsonl")], "output": str(tmp_path / "out")}
    with pytest.raises(UserError, match=message) as error:
        prepare.prepare(Preparation(**(given | options)))
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text"\n', "line 2 is not JSON: .* at column 8$"),
        ("a.jsonl", b'{"text": "\xff"}\n', "line 1 is not UTF-8: byte 10 of the line"),
        ("a.jsonl", b'["text"]\n', "line 1 has no text"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "half of a surrogate pair"),
        ("a.jsonl.gz", gzip.compress(LINES.encode())[:-20], "not a whole .gz file"),
        ("a.jsonl.gz", b"plain", "not a whole .gz file"),
        ("a.jsonl.zst", b"plain", "not a whole .zst file"),
        ("a.parquet", b"plain", "is not a Parquet file"),
        ("a.txt", b"\xff\xfe", "is not UTF-8 text: byte 0"),
        ("a.txt", b"", "no text in 1 files"),
        ("a.jsonl", b'{"text": "a"}\n' * 3, "all 3 documents begin alike"),
    ],
)
def test_files_that_are_not_what_they_say_are_named(tmp_path, name, content, message):
    def write(folder):
        (folder / name).write_bytes(content)

    with pytest.raises(UserError, match=message):
        run(tmp_path, write)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"body": ["a"]}), "no column --text_key=text; it has: body"),
        (pa.table({"text": [1]}), "column text holds int64, not strings"),
    ],
)
def test_parquet_without_text_is_one_line(tmp_path, table, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, lambda folder: pq.write_table(table, folder / "a.parquet"))


def test_interrupted_preparation_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare._SplitWriter, "finish", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["in_out"]


def test_long_json_documents_are_cut_like_long_files(tmp_path):
    text = "a line of words\n" * 100_000
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}))
    plain, lines = (
        list(corpus.read_documents(corpus.find_files([str(tmp_path / name)]), "text"))
        for name in ("a.txt", "a.jsonl")
    )
    assert plain == lines
    assert len(plain) == 2


def test_command_prints_counts_and_refuses_in_one_line(tmp_path):
    write_jsonl(tmp_path)
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-m", "experiments.prepare"]
    command += [f"--input={tmp_path}/*.jsonl", f"--output={tmp_path}/out"]
    environment = os.environ | {"COLUMNS": "100"}
    first, second = (
        subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True
        )
        for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert "validation" in first.stdout
    assert second.returncode == 2
    assert second.stderr.splitlines() == [
        f"error: --output={tmp_path}/out exists; remove it or choose another name"
    ]
