"""The routers there are, and what else a config can say about routing."""

from typing import Any

from rich.console import Group
from rich.table import Table

from moe_jax.analysis.describe import make_table
from moe_jax.routing import ROUTERS, router_options
from moe_jax.training.checks import CHOICES


def routers_table() -> Group:
    """The routers with their options, and the other fields that take a name."""
    table = make_table("router", "K", "causal", "options (defaults)", "what it does")
    for name, router in ROUTERS.items():
        options = [f"{k}={v!r}" for k, v in router_options(name).items()]
        table.add_row(
            name,
            str(router.num_selected or "any"),
            "yes" if router.causality == "causal" else "no",
            "\n".join(options) or "-",
            f"{_summary(router)}\n[dim]{router.source}[/dim]",
        )
        table.add_section()
    fields = make_table("field", "choices")
    for field, choices in CHOICES.items():
        if field.startswith(("moe.", "loss.")):
            fields.add_row(field, ", ".join(choices))
    return Group(_left(table), _left(fields))


def routers() -> list[dict[str, Any]]:
    """The routers there are, JSON-able."""
    return [
        {
            "name": name,
            "num_selected": router.num_selected,
            "causality": router.causality,
            "source": router.source,
            "summary": _summary(router),
            "options": router_options(name),
            "asks_for": sorted(router.asks_for),
            "losses": list(router.losses),
        }
        for name, router in ROUTERS.items()
    ]


def _summary(router: Any) -> str:
    return router.function.__doc__.splitlines()[0]


def _left(table: Table) -> Table:
    for column in table.columns:
        column.justify = "left"
    return table
