"""Text to token ids and back: bytes, SentencePiece, Hugging Face.

Every tokenizer has a BOS and an EOS; a model without one gets a new id at the
end of its vocabulary. Padding needs no id of its own: segment 0 marks it, and
padded arrays hold `pad_id` 0 there.
"""

import abc
import hashlib
import json
from collections.abc import Sequence

import numpy as np
import sentencepiece
import tokenizers as huggingface
from etils import epath

from moe_jax.errors import UserError

KINDS = ("bytes", "sentencepiece", "huggingface")

# A tokenizer.json does not say which of its special tokens begin and end a
# document; these are the names in use, most specific first.
_BOS_NAMES = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "[BOS]")
_EOS_NAMES = ("</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "[EOS]")


class Tokenizer(abc.ABC):
    """Maps text to ids and ids to text.

    Attributes:
      kind: one of `KINDS`.
      vocab_size: ids are in `[0, vocab_size)`; BOS and EOS included.
      pad_id: what padded arrays hold where the segment is 0; always 0.
      bos_id: put before every document.
      eos_id: put after every document.
      definition: the content of the model file; empty for bytes.
      fingerprint: SHA-256, in hex, of what defines it.
    """

    kind: str
    vocab_size: int
    pad_id = 0
    bos_id: int
    eos_id: int
    definition: bytes = b""
    fingerprint: str

    @abc.abstractmethod
    def encode_array(self, text: str) -> np.ndarray:
        """The ids of `text`, int32, without BOS and EOS."""

    @abc.abstractmethod
    def decode_bytes(self, ids: Sequence[int], after: int | None = None) -> bytes:
        """The bytes that `ids` stand for; special ids stand for none.

        A byte sequence need not be UTF-8: a character may begin in one row and
        end in the next.

        Args:
          ids: token ids.
          after: the token just before them in the same document; None: they
            begin the document. It matters where a tokenizer puts a space before
            the text.
        """

    def token_id(self, name: str) -> int | None:
        """The id of the token that is called `name`; None: there is none."""
        return None

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, without BOS and EOS."""
        return self.encode_array(text).tolist()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`; a torn character becomes U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes: pad 0, BOS 1, EOS 2, byte b is id b + 3."""

    kind = "bytes"
    offset = 3
    bos_id = 1
    eos_id = 2
    vocab_size = 256 + offset
    fingerprint = hashlib.sha256(b"bytes: pad 0, bos 1, eos 2, byte b + 3").hexdigest()

    def encode_array(self, text: str) -> np.ndarray:
        data = np.frombuffer(text.encode("utf-8"), np.uint8)
        return data.astype(np.int32) + self.offset

    def decode_bytes(self, ids: Sequence[int], after: int | None = None) -> bytes:
        ids = np.asarray(ids, np.int32)
        real = ids[(ids >= self.offset) & (ids < self.vocab_size)]
        return (real - self.offset).astype(np.uint8).tobytes()


class SentencePieceTokenizer(Tokenizer):
    """A SentencePiece model.

    Text survives a round trip if the model normalizes nothing and falls back to
    bytes, as the models that `prepare` trains do.

    Raises:
      UserError: `definition` is not a SentencePiece model.
    """

    kind = "sentencepiece"

    def __init__(self, definition: bytes, name: str = "the model"):
        self._model = sentencepiece.SentencePieceProcessor()
        try:
            self._model.LoadFromSerializedProto(definition)
        except RuntimeError as error:
            raise UserError(f"{name} is not a SentencePiece model") from error
        self.definition = definition
        self.fingerprint = hashlib.sha256(definition).hexdigest()
        self.vocab_size = self._model.vocab_size()
        self.bos_id = self._own_or_new(self._model.bos_id())
        self.eos_id = self._own_or_new(self._model.eos_id())
        self._bytes = [self._piece(i) for i in range(self._model.vocab_size())]
        probe = self._model.encode("a", out_type=str)
        self._leading_space = bool(probe) and probe[0].startswith("▁")

    def encode_array(self, text: str) -> np.ndarray:
        return np.asarray(self._model.encode(text), np.int32)

    def decode_bytes(self, ids: Sequence[int], after: int | None = None) -> bytes:
        known = len(self._bytes)
        data = b"".join(self._bytes[i] for i in ids if i < known)
        if self._leading_space and after is None and data.startswith(b" "):
            return data[1:]
        return data

    def token_id(self, name: str) -> int | None:
        found = self._model.piece_to_id(name)
        return None if self._model.is_unknown(found) else found

    def _own_or_new(self, id_of_model: int) -> int:
        if id_of_model >= 0:
            return id_of_model
        self.vocab_size += 1
        return self.vocab_size - 1

    def _piece(self, piece_id: int) -> bytes:
        piece = self._model.id_to_piece(piece_id)
        if self._model.is_control(piece_id):
            return b""
        if self._model.is_byte(piece_id):  # "<0x0A>"
            return bytes([int(piece[1:-1], 16)])
        if self._model.is_unknown(piece_id):
            return self._model.decode([piece_id]).encode()
        return piece.replace("▁", " ").encode()


class HuggingFaceTokenizer(Tokenizer):
    """A Hugging Face `tokenizer.json`.

    Special tokens that a text spells out are encoded as plain text, so that no
    document can forge a boundary.

    Raises:
      UserError: `definition` is not a tokenizer.json.
    """

    kind = "huggingface"

    def __init__(self, definition: bytes, name: str = "the tokenizer"):
        try:
            self._model = huggingface.Tokenizer.from_buffer(definition)
            parts = json.loads(definition)
        except Exception as error:  # `tokenizers` raises bare Exception
            raise UserError(f"{name} is not a tokenizer.json") from error
        self._model.no_padding()
        self._model.no_truncation()
        self._model.encode_special_tokens = True
        self.definition = definition
        self.fingerprint = hashlib.sha256(definition).hexdigest()
        self.vocab_size = self._model.get_vocab_size(with_added_tokens=True)
        ids = self._model.get_vocab(with_added_tokens=True).values()
        self.vocab_size = max(self.vocab_size, max(ids, default=-1) + 1)
        added = self._model.get_added_tokens_decoder()
        special = {token.content: i for i, token in added.items() if token.special}
        self._special_ids = set(special.values())
        self.bos_id = self._own_or_new(special, _BOS_NAMES)
        self.eos_id = self._own_or_new(special, _EOS_NAMES)
        self._special_ids |= {self.bos_id, self.eos_id}
        self._bytes = self._byte_table(parts, added)

    def encode_array(self, text: str) -> np.ndarray:
        encoding = self._model.encode(text, add_special_tokens=False)
        return np.asarray(encoding.ids, np.int32)

    def decode_bytes(self, ids: Sequence[int], after: int | None = None) -> bytes:
        real = [int(i) for i in ids if int(i) not in self._special_ids]
        if self._bytes is not None:
            return b"".join(self._bytes[i] for i in real)
        # Decoders such as Metaspace treat the first token of a text specially.
        before = [] if after is None or after in self._special_ids else [int(after)]
        prefix = self._model.decode(before) if before else ""
        return self._model.decode(before + real)[len(prefix) :].encode("utf-8")

    def token_id(self, name: str) -> int | None:
        return self._model.token_to_id(name)

    def _own_or_new(self, special: dict[str, int], names: Sequence[str]) -> int:
        for name in names:
            if name in special:
                return special[name]
        self.vocab_size += 1
        return self.vocab_size - 1

    def _byte_table(self, parts: dict, added: dict) -> list[bytes] | None:
        """Bytes of every id of a byte-level model; None for other models."""
        if '"ByteLevel"' not in json.dumps(parts["decoder"]):
            return None
        byte_of = {char: byte for byte, char in enumerate(_byte_level_alphabet())}
        table = []
        for i in range(self.vocab_size):
            token = self._model.id_to_token(i) or ""
            if i in added or any(char not in byte_of for char in token):
                table.append(token.encode("utf-8"))
            else:
                table.append(bytes(byte_of[char] for char in token))
        return table


def _byte_level_alphabet() -> list[str]:
    """The character that stands for each byte in byte-level BPE (GPT-2)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    code = {byte: byte for byte in visible}
    code |= {byte: 256 + index for index, byte in enumerate(hidden)}
    return [chr(code[byte]) for byte in range(256)]


def open_tokenizer(kind: str, path: str) -> Tokenizer:
    """The tokenizer that `data.tokenizer` and `data.tokenizer_path` name.

    Raises:
      UserError: the kind is unknown; the model file is missing or is not one.
    """
    if kind not in KINDS:
        raise UserError(
            f"data.tokenizer={kind!r} is unknown; choose from {', '.join(KINDS)}"
        )
    if kind == "bytes":
        if path:
            raise UserError(
                f"data.tokenizer_path={path} has no use with data.tokenizer='bytes'; "
                "leave it empty or choose sentencepiece or huggingface"
            )
        return ByteTokenizer()
    wanted = "a SentencePiece model" if kind == "sentencepiece" else "a tokenizer.json"
    if not path:
        raise UserError(
            f"data.tokenizer={kind!r} needs data.tokenizer_path: {wanted}; "
            "`python -m experiments.prepare --train_vocab_size=N` trains a model"
        )
    file = epath.Path(path).expanduser()
    if not file.exists() or file.is_dir():
        raise UserError(f"data.tokenizer_path={path} is no file; give {wanted}")
    made = SentencePieceTokenizer if kind == "sentencepiece" else HuggingFaceTokenizer
    return made(file.read_bytes(), path)
