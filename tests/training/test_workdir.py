"""A folder is one run: what may change between two starts, and what may not."""

import json

import pytest
from ml_collections import ConfigDict

from configs import base
from moe_jax.errors import UserError
from moe_jax.training import workdir as workdirs
from moe_jax.training.workdir import identity, load_config, open_workdir

DATA = ("f1", {"sources": {"stdlib": {"documents": 3}}})


def contents(path):
    return {p.name: p.read_bytes() for p in path.iterdir()}


def changed(**fields):
    config = base.get_config()
    with config.unlocked():
        config.update_from_flattened_dict(
            {name.replace("__", "."): value for name, value in fields.items()}
        )
    return config


def test_new_folder_then_the_same_run_resumes(tmp_path):
    assert open_workdir(base.get_config(), tmp_path / "a" / "run", *DATA) is False
    assert open_workdir(base.get_config(), tmp_path / "a" / "run", *DATA) is True


def test_config_survives_with_its_types_and_locks(tmp_path):
    config = changed(model__block_pattern=("dense", "moe:2", "moe"), seed=3)
    config.moe.router_options = {"threshold": 0.2, "ends": (1, 2)}
    config.data.mixture = ({"label": "a", "weight": 0.7}, {"label": "b", "weight": 0.3})
    config.train.num_steps = 7
    open_workdir(config, tmp_path, *DATA)
    loaded = load_config(tmp_path, base.get_config())
    assert loaded.to_dict() == config.to_dict()
    assert loaded.data.mixture == config.data.mixture
    assert isinstance(loaded.model.block_pattern, tuple)
    assert isinstance(loaded.moe.router_options.ends, tuple)
    with pytest.raises(AttributeError):
        loaded.model.heads = 3
    with pytest.raises(TypeError):
        loaded.model.num_heads = "three"
    loaded.moe.router_options.new = 1


def test_field_that_an_older_run_lacks_has_its_default(tmp_path):
    open_workdir(changed(seed=5), tmp_path, *DATA)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["model"]["remat"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    loaded = load_config(tmp_path, base.get_config())
    assert (loaded.seed, loaded.model.remat) == (5, "none")


@pytest.mark.parametrize(
    "text", ['{"model": {"d_modell": 3}}', '{"seed": "x"}', '{"model": 3}', "{"]
)
def test_config_of_another_schema_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json does not fit") as error:
        load_config(tmp_path, base.get_config())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mesh.expert", 2),
        ("train.num_steps", 1000),
        ("train.log_interval", 1),
        ("train.eval_interval", 7),
        ("train.checkpoint_interval", 7),
        ("train.keep_last", 9),
        ("train.keep_best", 9),
        ("train.eval_batches", 3),
        ("data.cache_dir", "/elsewhere"),
        ("data.path", "/moved/but/the/same/text"),
        ("data.tokenizer_path", "/moved/tokenizer.json"),
    ],
)
def test_runtime_field_may_change_and_is_recorded(tmp_path, field, value):
    open_workdir(base.get_config(), tmp_path, *DATA)
    config = changed(**{field: value})
    assert open_workdir(config, tmp_path, *DATA) is True
    assert load_config(tmp_path, base.get_config()).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", 1),
        ("init_from", "/other/run"),
        ("model.d_model", 256),
        ("model.block_pattern", ("moe",)),
        ("moe.train_capacity_factor", 1.0),
        ("moe.router_options.threshold", 0.1),
        ("loss.router_z", 1e-3),
        ("optimizer.decay_steps", 501),
        ("data.sequence_length", 128),
        ("data.mixture", ({"label": "a", "weight": 1.0},)),
        ("train.batch_size", 8),
        ("train.accumulation_steps", 2),
    ],
)
def test_identity_field_may_not_change_and_nothing_is_written(tmp_path, field, value):
    open_workdir(base.get_config(), tmp_path, *DATA)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=rf"{field}: run has .*, config has") as error:
        open_workdir(changed(**{field: value}), tmp_path, *DATA)
    assert "\n" not in str(error.value)
    assert contents(tmp_path) == before


def test_every_field_is_identity_or_runtime_by_name():
    everything = workdirs._flat(base.get_config().to_dict())
    runtime = everything.keys() - identity(base.get_config()).keys()
    assert {name.split(".")[0] for name in runtime} == {"mesh", "train", "data"}
    assert {name for name in runtime if name.startswith("data")} == {"data.cache_dir"}
    assert {"train.batch_size", "train.accumulation_steps", "seed"}.isdisjoint(runtime)


def test_identity_is_the_same_before_and_after_a_round_trip(tmp_path):
    config = changed(data__mixture=({"label": "a", "weight": 1.0, "path": "p"},))
    config.moe.router_options = {"ends": (1, 2)}
    open_workdir(config, tmp_path, *DATA)
    assert identity(load_config(tmp_path, base.get_config())) == identity(config)
    assert json.loads(json.dumps(identity(config))) == identity(config)


def test_mixture_may_move_but_not_change(tmp_path):
    source = {"label": "a", "weight": 1.0, "path": "here"}
    open_workdir(changed(data__mixture=(source,)), tmp_path, *DATA)
    moved = changed(data__mixture=({**source, "path": "there"},))
    assert open_workdir(moved, tmp_path, *DATA) is True
    heavier = changed(data__mixture=({**source, "weight": 2.0},))
    with pytest.raises(UserError, match=r"data\.mixture"):
        open_workdir(heavier, tmp_path, *DATA)


def test_other_data_is_refused_and_its_path_named(tmp_path):
    open_workdir(base.get_config(), tmp_path, *DATA)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="fingerprint: run has f1, config has f2") as e:
        open_workdir(changed(data__path="/other"), tmp_path, "f2", {})
    assert 'data.path: run has "", config has "/other"' in str(e.value)
    assert contents(tmp_path) == before


def test_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"is not empty.*thesis\.tex"):
        open_workdir(base.get_config(), tmp_path, *DATA)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_folder_with_only_the_commands_log_is_new(tmp_path):
    (tmp_path / "log.txt").write_text("$ train")
    assert open_workdir(base.get_config(), tmp_path, *DATA) is False
    assert (tmp_path / "log.txt").read_text() == "$ train"


def test_start_killed_before_the_config_was_written_is_a_new_run(tmp_path, monkeypatch):
    write_whole = workdirs.files.write_whole

    def killed_at_the_config(path, text):
        if path.name == workdirs.CONFIG:
            raise KeyboardInterrupt
        write_whole(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(workdirs.files, "write_whole", killed_at_the_config)
        with pytest.raises(KeyboardInterrupt):
            open_workdir(base.get_config(), tmp_path, *DATA)
    assert open_workdir(changed(seed=4), tmp_path, *DATA) is False


def test_environment_tells_of_each_start(tmp_path):
    for _ in range(3):
        open_workdir(base.get_config(), tmp_path, *DATA)
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert environment["data"] == {"fingerprint": "f1", **DATA[1]}
    assert len(environment["earlier"]) == 2
    assert all("earlier" not in start for start in environment["earlier"])
    assert {"jax", "jaxlib", "flax", "optax", "numpy", "python"} <= set(
        environment["versions"]
    )
    assert environment["devices"]["count"] >= 1
    assert environment["cpu_cores"] >= 1


@pytest.mark.parametrize("name", ["environment.json", "config.json"])
def test_unreadable_record_of_a_run_is_an_error(tmp_path, name):
    open_workdir(base.get_config(), tmp_path, *DATA)
    (tmp_path / name).write_text("{")
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        open_workdir(base.get_config(), tmp_path, *DATA)


def test_no_run_has_no_config(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        load_config(tmp_path, ConfigDict())
