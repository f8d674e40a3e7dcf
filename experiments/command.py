"""What all commands share: flags, one-line errors, quiet libraries.

A command module defines flags and a `main`, and ends with
`if __name__ == "__main__": command.run(main)`.
"""

import contextlib
import difflib
import logging as python_logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence

from absl import app, flags, logging
from etils import epath
from ml_collections import ConfigDict, config_flags

from configs import base
from moe_jax.aot.environment import quiet_absent_tpu
from moe_jax.errors import UserError

flags.disclaim_key_flags()  # a flag belongs to the command that asks for it

EXIT_USER_ERROR = 2


def define_config() -> flags.FlagHolder:
    """Defines `--config=FILE` and its overrides `--config.a.b=value`."""
    return config_flags.DEFINE_config_file(
        "config",
        None,
        "Experiment file, such as configs/quickstart.py, or a run's config.json; any "
        "of its fields can be overridden: --config.moe.num_experts=16",
        lock_config=True,
    )


def define_run_config() -> flags.FlagHolder:
    """Defines overrides `--config.a.b=value` of the config that a run holds."""
    with _one_line_errors(sys.argv):  # overrides are parsed here, before _parse
        return config_flags.DEFINE_config_dict(
            "config",
            base.get_config(),
            "Override a field of the run's own config: --config.a.b=value",
            lock_config=True,
        )


def define_workdir(help_text: str) -> flags.FlagHolder:
    """Defines `--workdir=DIR`, which must be given."""
    holder = flags.DEFINE_string("workdir", None, help_text)
    flags.mark_flag_as_required("workdir")
    return holder


def read_config(holder: flags.FlagHolder) -> ConfigDict:
    """Returns the config of `--config`, with its overrides.

    Raises:
      UserError: no `--config` was given.
    """
    if holder.value is None:
        raise UserError("--config=FILE is missing, such as configs/quickstart.py")
    return holder.value


def read_run_config(holder: flags.FlagHolder, workdir: flags.FlagHolder) -> ConfigDict:
    """Returns the config of the run in `--workdir`, with the overrides.

    Raises:
      UserError: no run there, or a field that it does not have.
    """
    from moe_jax.training.workdir import load_config

    config = load_config(workdir.value, base.get_config())
    overrides = config_flags.get_override_values(flags.FLAGS[holder.name])
    config.update_from_flattened_dict(overrides)
    return config


def run(main: Callable[[Sequence[str]], None], takes_names: bool = False) -> None:
    """Runs a command; what the user can mend ends in one line and status 2.

    Args:
      main: is given the arguments that are no flags, behind the program's name.
      takes_names: whether there may be such arguments.
    """
    # The local imports of jax must not happen before the flags are known, or
    # --help would take seconds.
    logging.set_verbosity(logging.WARNING)
    plain = python_logging.Formatter("%(levelname)s: %(message)s")
    logging.get_absl_handler().setFormatter(plain)
    app.run(_with_one_line_errors(main, takes_names), flags_parser=_parse)


def _with_one_line_errors(
    main: Callable[[Sequence[str]], None], takes_names: bool
) -> Callable[[Sequence[str]], None]:
    def wrapped(argv: Sequence[str]) -> None:
        quiet_absent_tpu()
        _set_up_compilation_cache()
        try:
            if len(argv) > 1 and not takes_names:
                raise UserError(f"unknown argument {argv[1]!r}; --help lists the flags")
            main(argv)
        except UserError as error:
            _fail(str(error))
        except OSError as error:  # a path that was given cannot be read or written
            if error.filename is None:
                raise
            _fail(f"{error.filename}: {error.strerror}")

    return wrapped


def _set_up_compilation_cache() -> None:
    """A program compiled once is read back by the runs that follow."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    import jax

    cache = epath.Path("~/.cache/moe_jax/compiled").expanduser()
    jax.config.update("jax_compilation_cache_dir", str(cache))


def _parse(argv: Sequence[str]) -> Sequence[str]:
    _check_config_file(argv)
    with _one_line_errors(argv):
        return flags.FLAGS(_without_json(argv))


@contextlib.contextmanager
def _one_line_errors(argv: Sequence[str]) -> Iterator[None]:
    """What is wrong with the flags of `argv` ends in one line and status 2."""
    try:
        yield
    except UserError as error:
        _fail(str(error))
    except flags.Error as error:
        _fail(_of_flag(str(error)))
    except (AttributeError, KeyError) as error:
        _fail(_unknown_field(str(error), argv))
    except (SyntaxError, TypeError, ValueError) as error:
        _fail(f"{_config_path(argv)}: {type(error).__name__}: {error}")


def _config_path(argv: Sequence[str]) -> str | None:
    """What `--config` was set to; the flag's own value hides a failed load."""
    for i, arg in enumerate(argv):
        if arg == "--config" and i + 1 < len(argv):
            return argv[i + 1]
        if match := re.fullmatch(r"--config=(.*)", arg):
            return match[1]
    return None


def _check_config_file(argv: Sequence[str]) -> None:
    path = _config_path(argv)
    if path is None:
        wants_file = "config" in flags.FLAGS and flags.FLAGS["config"].default is None
        if wants_file and any(arg.startswith("--config.") for arg in argv):
            _fail("--config.FIELD=VALUE needs --config=FILE, to override a field of it")
        return
    file = epath.Path(path)
    if not file.is_file():
        meant = _file_meant(file)
        hint = f"; did you mean {meant}?" if meant else ""
        _fail(f"--config={path}: no such file{hint}")


def _file_meant(path: epath.Path) -> str:
    """The config file that is nearest to one that does not exist; "" if none is."""
    for other in (path / "config.json", epath.Path("configs") / f"{path.name}.py"):
        if other.is_file():
            return str(other)
    near = sorted(map(str, path.parent.glob("*.py"))) if path.parent.is_dir() else []
    return next(iter(difflib.get_close_matches(str(path), near, 1, cutoff=0.7)), "")


def _without_json(argv: Sequence[str]) -> Sequence[str]:
    """Loads a `--config` in JSON, which the config flag itself cannot read."""
    path = _config_path(argv)
    if path is None or not path.endswith(".json"):
        return argv
    from moe_jax.training.workdir import read_config

    config = read_config(path, base.get_config())
    rest = list(argv)
    for words in ([f"--config={path}"], ["--config", path]):
        for i in range(len(rest)):
            if rest[i : i + len(words)] == words:
                del rest[i : i + len(words)]
    delattr(flags.FLAGS, "config")
    config_flags.DEFINE_config_dict("config", config, lock_config=True, sys_argv=rest)
    return rest


def _of_flag(message: str) -> str:
    """What is wrong with a flag, in the words of who wants to mend it."""
    if missing := re.search(r"Flag --(\w+) must have a value other than None", message):
        return f"--{missing[1]} is missing; --help says what it takes"
    if "malformed node" in message or "ast." in message:
        flag = message.split(": ")[0].removeprefix("flag ")
        return f"{flag}: write it as Python does, such as \"{{'gates': 'raw'}}\""
    return message.replace("\n", " ")


def _unknown_field(message: str, argv: Sequence[str]) -> str:
    """Names the override that failed, and the field that is nearest to it."""
    if "config_config" in message:
        return f"--config={_config_path(argv)}: the file defines no get_config()"
    nearest = re.search(r'Did you mean "([^"]+)"', message)
    field = re.search(r"'?\\?'(\w+)\\?'", message)
    name = field[1] if field else message
    override = next((a for a in argv if a.split("=")[0].endswith(f".{name}")), name)
    known = f"; did you mean {nearest[1]!r}?" if nearest else ""
    return f"{override}: the config has no field {name!r}{known}"


def _fail(message: str) -> None:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(EXIT_USER_ERROR)
