"""Says what a config costs before it runs, and which routers there are.

  python -m experiments.describe --config=configs/base.py --twin=active_flops
  python -m experiments.describe --config=configs/mixtral_8x7b.py --sharding \\
    --devices=64
  python -m experiments.describe --routers

Parameters, FLOPs per token, slots and bytes of state; nothing is trained,
compiled or allocated. --twin sets the dense model beside it that has the same
active FLOPs or the same parameters. A multiply-add is two FLOPs; attention counts
the full square of the sequence; training is three forward passes.

--sharding adds what each device holds: the rules from logical axes to mesh axes, each
parameter's place, and the bytes of parameters and optimizer state on one device.
--devices says how many there are where mesh.data, mesh.expert or mesh.model is -1.
"""

import dataclasses
import json
from collections.abc import Sequence

from absl import flags

from experiments import command
from moe_jax.console import make_console

_CONFIG = command.define_config()
_TWIN = flags.DEFINE_string(
    "twin", "", "Also describe the dense twin: active_flops or total_params."
)
_SHARDING = flags.DEFINE_bool(
    "sharding", False, "Also say where each parameter lives on the config's mesh."
)
_DEVICES = flags.DEFINE_integer(
    "devices",
    0,
    "Of --sharding: how many devices the mesh has; 0: the product of its axes.",
    lower_bound=0,
)
_ROUTERS = flags.DEFINE_bool("routers", False, "List the routers and their options.")
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")


def main(argv: Sequence[str]) -> None:
    del argv
    import jax

    # Counting needs no accelerator, and must not take one from a running job.
    jax.config.update("jax_platforms", "cpu")
    from moe_jax.analysis import describe, router_list, sharding

    if _ROUTERS.value:
        facts, tables = router_list.routers(), [router_list.routers_table()]
    else:
        config = command.read_config(_CONFIG)
        described = describe.describe_with_twin(config, _TWIN.value)
        facts = {name: dataclasses.asdict(one) for name, one in described.items()}
        tables = [describe.to_table(described)]
        if _SHARDING.value:
            placed = sharding.describe_sharding(config, _DEVICES.value)
            facts["sharding"] = dataclasses.asdict(placed)
            tables.append(sharding.to_tables(placed))
    if _JSON.value:
        print(json.dumps(facts, indent=1))
    else:
        make_console().print(*tables, sep="\n")


if __name__ == "__main__":
    command.run(main)
