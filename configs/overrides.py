"""Overrides that sweeps share."""

from collections.abc import Mapping
from typing import Any


def router(name: str, num_selected: int, **options: Any) -> Mapping[str, Any]:
    """Chooses a router with K experts per token and its own options."""
    return {
        "moe.router": name,
        "moe.num_selected_experts": num_selected,
        "moe.router_options": options,
    }
