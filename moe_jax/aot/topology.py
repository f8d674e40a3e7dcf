"""TPU slices by name, such as v5e:4x4: their devices and links, without the TPUs."""

import dataclasses
import math
import re
from typing import Any

from jax.experimental import topologies

from moe_jax.analysis.hardware import TPU_CHIPS, TpuChip
from moe_jax.aot import environment
from moe_jax.errors import UserError

EXAMPLES = ("v5e:4x4", "v5p:4x4x8", "v6e:16x16", "v4:2x2x4", "tpu7x:4x4x4")
_LONGEST_WORDS = 120


@dataclasses.dataclass(frozen=True)
class Topology:
    """One or several equal slices.

    Attributes:
      name: as libtpu knows it.
      num_slices: joined by the data center's network.
      chip: what one chip can do.
      shape: chips along each dimension of one slice.
      wraps: which dimensions are closed to rings.
      devices: JAX devices to compile for, of all slices; nothing can run on them.
    """

    name: str
    num_slices: int
    chip: TpuChip
    shape: tuple[int, ...]
    wraps: tuple[bool, ...]
    devices: tuple[Any, ...]

    @property
    def chips(self) -> int:
        """Of all slices."""
        return len(self.devices) // self.chip.devices

    @property
    def device_kind(self) -> str:
        """As JAX names it."""
        return self.devices[0].device_kind


def open_topology(name: str, num_slices: int = 1) -> Topology:
    """Asks libtpu for the devices of a slice; no TPU is needed, none is touched.

    A chip of v4 or v5p is one device (its two cores work as one, as in the cloud); a
    chip of tpu7x is two.

    Raises:
      UserError: libtpu is missing, or knows no such slice.
    """
    if not environment.libtpu_is_installed():
        raise UserError(
            "compiling for a TPU needs libtpu, which is not installed: "
            "pip install -e '.[tpu]'"
        )
    if num_slices < 1:
        raise UserError(f"--num_slices={num_slices} must be at least 1")
    generation, shape = _parse(name)
    chip = TPU_CHIPS[generation]
    wraps = _wraps(shape, chip.dimensions)
    options: dict[str, Any] = {"wrap": (*wraps, False, False)[:3]}
    if generation == "v4":
        options["chip_config_name"] = "megacore"
    if math.prod(shape) == 1:  # the default host has 2 x 2 chips
        options["chips_per_host_bounds"] = (1, 1, 1)
    if num_slices > 1:
        options["num_slices"] = num_slices
    environment.use_libtpu_as_compiler()
    try:
        described = topologies.get_topology_desc(name, "tpu", **options)
    except (RuntimeError, ValueError) as error:
        words = str(error).split("\n")[0][:_LONGEST_WORDS]
        raise _unknown(name, f"libtpu knows no such slice ({words})") from error
    devices = tuple(described.devices)
    return Topology(name, num_slices, chip, shape, wraps, devices)


def _parse(name: str) -> tuple[str, tuple[int, ...]]:
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)(_twisted|_untwisted)?", name)
    if not match:
        raise _unknown(name, "a slice is named GENERATION:SHAPE")
    if match[1] not in TPU_CHIPS:
        raise _unknown(name, f"generations are {', '.join(TPU_CHIPS)}")
    return match[1], tuple(int(size) for size in match[2].split("x"))


def _wraps(shape: tuple[int, ...], dimensions: int) -> tuple[bool, ...]:
    """Which dimensions the hardware closes: of cubes of 4 x 4 x 4 all, in the
    generations with a plane those of a whole pod's length."""
    if dimensions == 3:
        cubes = len(shape) == 3 and all(size % 4 == 0 for size in shape)
        return (cubes,) * len(shape)
    return tuple(size == 16 for size in shape)


def _unknown(name: str, why: str) -> UserError:
    return UserError(f"--topology={name}: {why}; such as {', '.join(EXAMPLES)}")
