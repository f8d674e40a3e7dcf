"""The scale `paper`: the published setup, where the devices suffice for it."""

import shlex

import jax

from moe_jax.claims.session import Settings
from moe_jax.claims.table import Table
from moe_jax.errors import UserError


def refuse_if_too_small(table: Table, settings: Settings) -> None:
    """Refuses to run a published setup on a machine that is not large enough.

    Dry runs and SLURM, whose nodes are elsewhere, are never refused; nor are claims
    that are computed.

    Raises:
      UserError: with the slice that it takes, and what to start there.
    """
    if table.scale != "paper" or not table.needed_arms():
        return
    if settings.dry_run or settings.launcher == "slurm":
        return
    devices = jax.devices()
    if devices[0].platform != "cpu" and len(devices) >= table.num_devices:
        return
    command = ["python", "-m", "experiments.reproduce", table.name, "--scale=paper"]
    launch = shlex.join([*command, "--workdir=gs://BUCKET/claims"])
    raise UserError(
        f"{table.name} at scale paper takes {table.slice or 'accelerators'} "
        f"({table.num_devices} devices) and here are {len(devices)} of kind "
        f"{devices[0].device_kind}; start there: {launch}. --dry_run prints the arms"
    )
