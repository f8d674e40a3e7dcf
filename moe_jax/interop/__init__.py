"""Checkpoints of other libraries, in and out."""

from moe_jax.interop.huggingface import read_folder, write_folder
from moe_jax.interop.switch import export_switch, import_switch, switch_config

__all__ = [
    "export_switch",
    "import_switch",
    "read_folder",
    "switch_config",
    "write_folder",
]
