"""What libtpu is told about the machine when it holds no TPU."""

import importlib.util
import os
import pathlib

# Of a made-up single host: libtpu asks a cloud's metadata server for what is missing
# here, waits for it, and complains on standard error. Compiling depends on none of it.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
_TPU_DEVICES = ("accel[0-9]*", "vfio/[0-9]*")


def libtpu_is_installed() -> bool:
    """Whether there is a libtpu to load."""
    return bool(os.environ.get("TPU_LIBRARY_PATH")) or (
        importlib.util.find_spec("libtpu") is not None
    )


def tpu_is_attached(devices: pathlib.Path = pathlib.Path("/dev")) -> bool:
    """Whether a TPU's device files are there."""
    return any(any(devices.glob(pattern)) for pattern in _TPU_DEVICES)


def quiet_absent_tpu() -> None:
    """Keeps an installed libtpu from complaining that there is no TPU.

    To be called before the first computation. Where a TPU is attached, nothing
    changes; what is set already stays.
    """
    if libtpu_is_installed() and not tpu_is_attached():
        for name, value in _NO_TPU.items():
            os.environ.setdefault(name, value)


def use_libtpu_as_compiler() -> None:
    """Prepares this process to compile for TPUs without touching one.

    An attached TPU stays free for other processes, and several processes may compile
    at once. To be called before the first computation.
    """
    import jax

    jax.config.update("jax_platforms", "cpu")
    os.environ.update(_NO_TPU)
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    # Only what is fatal: what the compiler refuses comes as an exception.
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
