"""Memory that was freed is used again, without the kernel."""

import subprocess
import sys
import textwrap

import pytest

from moe_jax import allocator

PROGRAM = """
    import resource, sys
    import jax, jax.numpy as jnp
    from moe_jax.allocator import keep_freed_memory

    if sys.argv[1] == "keep" and not keep_freed_memory():
        sys.exit("no glibc")
    step = jax.jit(lambda x: x + 1)
    x = jnp.zeros(2**24)  # 64 MB, which is 16384 pages
    for i in range(40):  # so many, until all threads have found their place
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        step(x).block_until_ready()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    """Of one call of a compiled function with a large result."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), mode],
        capture_output=True,
        text=True,
        check=False,
    )
    if "no glibc" in done.stderr:
        pytest.skip("another libc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux")
def test_kept_memory_is_not_fetched_from_the_kernel_again():
    assert page_faults("keep") < 1000 < 10_000 < page_faults("default")


def test_another_libc_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()
