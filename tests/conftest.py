"""What all tests share: checked shapes, a compilation cache, few random examples.

The environment is set before jax is imported, so that the processes that tests
start have it, too.
"""

import os
import pathlib

_ROOT = pathlib.Path(__file__).resolve().parent.parent
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Most of a test's time is compiling: as little of it as gives the same numbers.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import hypothesis  # noqa: E402
import jaxtyping  # noqa: E402

import tests.typechecker  # noqa: E402, F401  # the hook finds it by name

# Every annotation of a shape is checked, wherever the tests call the package.
jaxtyping.install_import_hook("moe_jax", "tests.typechecker.checked")

# The same examples each time: a failure is one of the code, not of the day.
hypothesis.settings.register_profile(
    "repeatable", max_examples=20, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("repeatable")
