"""Many processes as one run: the flags, and a parent that watches over each.

When a process dies, the runtime ends the others from within, without a word of
Python's. So a command that is one of several runs as the child of the command that
was started, which passes signals on to it and says in one line what ended it.
"""

import contextlib
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence

from absl import flags

from experiments import command
from moe_jax.errors import UserError

flags.disclaim_key_flags()  # a flag belongs to the command that asks for it

# In the child's environment: the file descriptor of its end of the link.
_LINK = "MOE_JAX_PARENT_LINK"

Main = Callable[[Sequence[str]], None]


@dataclasses.dataclass(frozen=True)
class ProcessFlags:
    """What the command line says of the other processes."""

    coordinator: flags.FlagHolder
    num_processes: flags.FlagHolder
    process_id: flags.FlagHolder
    distributed: flags.FlagHolder
    join_timeout: flags.FlagHolder


def define_flags() -> ProcessFlags:
    """Defines the flags of a command that can be one of several processes."""
    return ProcessFlags(
        flags.DEFINE_string(
            "coordinator",
            None,
            "HOST:PORT of process 0, the same for all processes of the run; needs "
            "--num_processes and --process_id.",
        ),
        flags.DEFINE_integer("num_processes", None, "Of the run.", lower_bound=1),
        flags.DEFINE_integer("process_id", None, "This one's, from 0.", lower_bound=0),
        flags.DEFINE_bool(
            "distributed",
            False,
            "Find the run's other processes through SLURM (srun), Cloud TPU, GKE or "
            "Open MPI. Without it and without --coordinator the command is one "
            "process on all devices of this machine, even inside a SLURM job.",
        ),
        flags.DEFINE_integer(
            "join_timeout",
            300,
            "Seconds to wait for the other processes at the start.",
            lower_bound=1,
        ),
    )


def one_of_many(main: Main, settings: ProcessFlags, *, trains: bool = False) -> Main:
    """Lets `main` be one of several processes, where the flags say so.

    Args:
      main: of a command.
      settings: from `define_flags`.
      trains: it saves on SIGTERM, and goes on when it is started again.
    """

    def wrapped(argv: Sequence[str]) -> None:
        _check(settings)
        if settings.coordinator.value is None and not settings.distributed.value:
            main(argv)
        elif _LINK in os.environ:
            _run_child(main, argv, settings, trains)
        else:
            sys.exit(_watch_child(settings, trains))

    return wrapped


def _check(settings: ProcessFlags) -> None:
    """Refuses combinations that cannot work."""
    own = ("coordinator", "num_processes", "process_id")
    given = [name for name in own if getattr(settings, name).value is not None]
    missing = [f"--{name}" for name in own if name not in given]
    if settings.distributed.value and given:
        raise UserError(
            f"--distributed finds what --{given[0]} says; give one or the other"
        )
    if given and missing:
        raise UserError(f"--{given[0]} needs {' and '.join(missing)}")
    if not given:
        return
    address = settings.coordinator.value
    match = re.fullmatch(r"(\[[^\]]+\]|[^:\s]+):(\d{1,5})", address)
    if not match or not 0 < int(match[2]) < 2**16:
        raise UserError(
            f"--coordinator={address}: write HOST:PORT, such as 10.0.0.1:8476"
        )
    index, count = settings.process_id.value, settings.num_processes.value
    if index >= count:
        raise UserError(
            f"--process_id={index}: with --num_processes={count} they are 0 to "
            f"{count - 1}"
        )


def _run_child(
    main: Main, argv: Sequence[str], settings: ProcessFlags, trains: bool
) -> None:
    """Joins the others, runs `main`, and ends with them: well, or failed."""
    link = socket.socket(fileno=int(os.environ.pop(_LINK)))
    link.set_inheritable(False)
    threading.Thread(target=_end_with_parent, args=[link], daemon=True).start()
    # Ctrl-C reaches all processes of a terminal; the parent passes on a SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_stdout_for_results()
    import jax

    from moe_jax.parallel import processes

    place = None
    if settings.coordinator.value is not None:
        place = processes.Place(
            settings.coordinator.value,
            settings.num_processes.value,
            settings.process_id.value,
        )
    # Where the runtime cannot start, it ends this process (and the parent says what
    # ended it) or raises.
    try:
        with _without_stderr():
            processes.join(place, settings.join_timeout.value)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(_not_together(settings)) from error
    name = f"process {jax.process_index()} of {jax.process_count()}"
    link.sendall(f"joined {name}\n".encode())
    if not trains:  # the runtime takes SIGTERM for a notice to training
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        processes.meet()
        main(argv)
        processes.leave()
        return
    except UserError as error:
        message, status, outcome = (
            f"error: {error}\n",
            command.EXIT_USER_ERROR,
            "failed",
        )
    except jax.errors.JaxRuntimeError:  # another's death, as a collective sees it
        message, status, outcome = traceback.format_exc(), 1, "stopped"
    except Exception:
        message, status, outcome = traceback.format_exc(), 1, "failed"
    sys.stderr.write(message)
    sys.stderr.flush()
    link.sendall(f"{outcome} {status}\n".encode())
    with _without_stderr():
        processes.leave_failed()
    # Not by sys.exit: threads may still wait for a process that has failed.
    sys.stdout.flush()
    os._exit(status)


def _end_with_parent(link: socket.socket) -> None:
    with contextlib.suppress(OSError):
        link.recv(1)  # nothing is ever sent: it ends when the parent is gone
    os._exit(1)


def _keep_stdout_for_results() -> None:
    """Sends to stderr what libraries of C++ write to stdout."""
    sys.stdout.flush()
    own = os.dup(sys.stdout.fileno())
    os.dup2(2, 1)
    sys.stdout = os.fdopen(own, "w", encoding="utf-8")


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _watch_child(settings: ProcessFlags, trains: bool) -> int:
    """Runs this command again as a child; returns the exit status."""
    ours, theirs = socket.socketpair()
    child = subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:]],
        pass_fds=[theirs.fileno()],
        env=os.environ | {_LINK: str(theirs.fileno())},
    )
    theirs.close()
    interrupts = 0

    def forward(number: int, _: object) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            child.kill()
        else:
            child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    status = child.wait()
    ours.setblocking(False)
    told = {"joined": "", "failed": "", "stopped": ""}
    with contextlib.suppress(BlockingIOError):
        lines = ours.recv(4096).decode().splitlines()
        told |= dict(line.split(" ", 1) for line in lines)
    if status < 0:
        status, message = _explain(signal.Signals(-status), told, settings, trains)
        sys.stderr.write(message)
    return status


def _not_together(settings: ProcessFlags) -> str:
    where = settings.coordinator.value or "the address that the cluster gives"
    return (
        f"the processes did not come together at {where} within "
        f"{settings.join_timeout.value} s: start all of them, with one coordinator "
        "and number and an id each; its port must be free on the machine of "
        "process 0 and reachable from the others"
    )


def _explain(
    number: signal.Signals, told: dict[str, str], settings: ProcessFlags, trains: bool
) -> tuple[int, str]:
    """Exit status and line for a child that a signal ended."""
    from moe_jax.parallel.processes import HEARTBEAT_SECONDS

    name, status = told["joined"], 128 + number
    again = "start all processes again"
    if trains:
        again += " with the same command to go on from the last checkpoint"
    if told["failed"]:  # and said why; then the runtime ended it with the others
        return int(told["failed"]), f"{name} failed, and ends the others with it\n"
    runtime = number in (signal.SIGABRT, signal.SIGSEGV)
    if not name and runtime:
        return command.EXIT_USER_ERROR, f"error: {_not_together(settings)}\n"
    if number == signal.SIGABRT:
        return status, (
            f"error: {name} was stopped by the runtime: another process ended, or "
            f"could not be reached for {HEARTBEAT_SECONDS} s; {again}\n"
        )
    who = name or "this process"
    return status, f"error: {who} was ended by {number.name}; {again}\n"
