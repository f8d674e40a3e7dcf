"""A model's folder as Hugging Face writes it: config.json and safetensors files."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moe_jax.errors import UserError

_CONFIG, _ONE, _INDEX = (
    "config.json",
    "model.safetensors",
    "model.safetensors.index.json",
)


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The config of a saved model, and its tensors by name.

    Args:
      folder: from `save_pretrained`, or downloaded; in one file or in shards.

    Raises:
      UserError: a file is missing, or safetensors is not installed.
    """
    _check_installed()
    from safetensors.numpy import load_file

    for name in (_CONFIG,):
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} has no {name}: it is no saved Hugging Face model"
            )
    config = json.loads((folder / _CONFIG).read_text())
    if (folder / _INDEX).is_file():
        index = json.loads((folder / _INDEX).read_text())
        files = sorted(set(index["weight_map"].values()))
    else:
        files = [_ONE]
    tensors: dict[str, np.ndarray] = {}
    for name in files:
        if not (folder / name).is_file():
            raise UserError(
                f"{folder} has no {name}; save the model with "
                "save_pretrained(..., safe_serialization=True)"
            )
        tensors |= load_file(folder / name)
    return config, tensors


def write_folder(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> None:
    """Writes a folder that `from_pretrained` reads; fails if there is a model in it.

    Raises:
      UserError: `folder` holds a config.json already; safetensors is not installed.
    """
    _check_installed()
    from safetensors.numpy import save_file

    if (folder / _CONFIG).exists():
        raise UserError(f"{folder} holds a {_CONFIG} already; give an empty folder")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()},
        folder / _ONE,
        metadata={"format": "pt"},
    )
    (folder / _CONFIG).write_text(json.dumps(dict(config), indent=1))


def _check_installed() -> None:
    if importlib.util.find_spec("safetensors") is None:
        raise UserError(
            "Hugging Face files need safetensors: pip install -e '.[interop]'"
        )
