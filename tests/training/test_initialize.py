"""Where a run starts: weights and slots of another, and what is refused."""

import dataclasses

import jax
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.parallel import path_name
from moe_jax.training.checkpoints import Checkpoints
from moe_jax.training.experiment import build_experiment
from moe_jax.training.initialize import (
    check_slots,
    check_source,
    initial_state,
    state_of_another,
)
from moe_jax.training.slots import Slot, name_slots
from moe_jax.training.state import shardings_of
from tests.models.tiny import VOCABULARY, tiny_batch, tiny_config

STEPS = 3
TRAINED_BY = {
    "adamw": {"optimizer.clip_norm": 1.0},
    "adafactor": {
        "optimizer.name": "adafactor",
        "optimizer.adafactor.momentum": 0.9,
        "optimizer.adafactor.min_dim_size_to_factor": 8,
    },
    "attention": {"optimizer.trainable": "attention"},
}


def config_of(**changes):
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return tiny_config({"model.num_layers": 2, "optimizer.decay_steps": 50, **named})


def advanced(experiment, step, state):
    """The state after `STEPS` more."""
    for seed in range(STEPS):
        batch = tiny_batch(experiment.config, padding=False, seed=seed)
        state, _ = step(state, batch)
    return state


def as_if_trained(experiment):
    """A state whose slots are noise, and whose counts say `STEPS`."""
    rng = np.random.default_rng(0)

    def filled(leaf):
        if leaf.dtype == np.int32:
            return np.full(leaf.shape, STEPS, np.int32)
        return rng.uniform(0.1, 1.0, leaf.shape).astype(leaf.dtype)

    state = experiment.init()
    opt_state = jax.tree.map(filled, state.opt_state)
    opt_state = jax.device_put(opt_state, shardings_of(experiment.abstract.opt_state))
    return dataclasses.replace(state, step=state.step + STEPS, opt_state=opt_state)


def save(workdir, experiment, state):
    with Checkpoints(workdir / "checkpoints", 1, 0) as checkpoints:
        extra = {"config": experiment.config.to_dict()}
        checkpoints.save(int(state.step), state, extra)


def start(tmp_path, config):
    """The first state of a run of that config, and its experiment."""
    experiment = build_experiment(config, VOCABULARY)
    check_source(config)
    check_slots(experiment)
    with Checkpoints(tmp_path / "checkpoints", 1, 0) as checkpoints:
        another = state_of_another(experiment, checkpoints)
        return initial_state(experiment, checkpoints, another), experiment


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Workdirs of runs by the name of their optimizer, and their last states."""
    saved = {}
    for name, changes in TRAINED_BY.items():
        workdir = tmp_path_factory.mktemp(name)
        experiment = build_experiment(config_of(**changes), VOCABULARY)
        state = as_if_trained(experiment)
        save(workdir, experiment, state)
        saved[name] = workdir, state
    return saved


def leaves(tree):
    return {
        path_name(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def slots(state):
    """The optimizer's slots of a state by name, and its counts by path."""
    values = leaves(state.opt_state)
    named = name_slots(values, leaves(state.params))
    by_name = {s: values[p] for p, s in named.items() if s.kind != "count"}
    return by_name, {p: values[p] for p in values if p.endswith("count")}


@pytest.mark.fast
def test_slots_are_named_by_their_kind_and_parameter_wherever_they_lie():
    params = ["embed/embedding", "encoder/embed/embedding", "words/count"]
    assert name_slots(
        [
            "opt_state/0/count",
            "opt_state/0/mu/embed/embedding",
            "opt_state/0/mu/encoder/embed/embedding",
            "opt_state/inner_states/moving/inner_state/1/nu/embed/embedding",
            "opt_state/3/v/words/count",
            "opt_state/2/count",
        ],
        params,
    ) == {
        "opt_state/0/count": Slot("count", "mu"),
        "opt_state/0/mu/embed/embedding": Slot("mu", "embed/embedding"),
        "opt_state/0/mu/encoder/embed/embedding": Slot("mu", "encoder/embed/embedding"),
        "opt_state/inner_states/moving/inner_state/1/nu/embed/embedding": Slot(
            "nu", "embed/embedding"
        ),
        "opt_state/3/v/words/count": Slot("v", "words/count"),
    }


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("takes_slots", [False, True])
def test_a_run_from_another_has_its_weights_and_maybe_its_slots_at_step_0(
    runs, tmp_path, name, takes_slots
):
    workdir, trained = runs[name]
    config = config_of(
        **TRAINED_BY[name],
        seed=7,
        init_from=str(workdir),
        init_optimizer=takes_slots,
        optimizer__clip_norm=0.0,  # the slots lie elsewhere
        optimizer__weight_decay=0.1,
    )
    state, experiment = start(tmp_path, config)
    assert state.step == 0
    jax.tree.map(np.testing.assert_array_equal, state.params, trained.params)
    ours, counts = slots(state)
    theirs, _ = slots(trained)
    assert ours.keys() == theirs.keys()
    for slot, value in ours.items():
        expected = theirs[slot] if takes_slots else np.zeros_like(theirs[slot])
        np.testing.assert_array_equal(value, expected, err_msg=str(slot))
    # All but the schedule's count what the slots have seen.
    expected = [0] + [STEPS if takes_slots else 0] * (len(counts) - 1)
    assert sorted(int(count.max()) for count in counts.values()) == expected
    assert all((count == count.max()).all() for count in counts.values())
    for leaf, wanted in zip(
        jax.tree.leaves(state), jax.tree.leaves(experiment.abstract), strict=True
    ):
        assert (leaf.shape, leaf.dtype) == (wanted.shape, wanted.dtype)
        assert leaf.sharding == wanted.sharding


def test_slots_of_what_moves_are_taken_from_a_run_in_which_more_moved(runs, tmp_path):
    workdir, trained = runs["adamw"]
    config = config_of(
        init_from=str(workdir), init_optimizer=True, optimizer__trainable="non_expert"
    )
    state, _ = start(tmp_path, config)
    ours, counts = slots(state)
    theirs, _ = slots(trained)
    assert {slot for slot in theirs if "/experts/" not in slot.of} == ours.keys()
    for slot, value in ours.items():
        np.testing.assert_array_equal(value, theirs[slot], err_msg=str(slot))
    assert sorted(int(count) for count in counts.values()) == [0, STEPS]


@pytest.mark.parametrize(
    ("source", "changes", "message"),
    [
        ("adafactor", {}, r"no slot 'mu' of .* and \d+ more .*name='adafactor'"),
        ("adamw", TRAINED_BY["adafactor"], r"no slot 'v_row' of .*name='adamw'"),
        ("attention", {}, r"no slot 'mu' of .*optimizer\.trainable='attention'"),
        ("adamw", {"optimizer.adamw.mu_dtype": "bfloat16"}, r"no slot 'mu' of"),
    ],
)
def test_slots_that_do_not_match_are_refused_before_anything_is_written(
    runs, tmp_path, source, changes, message
):
    workdir, _ = runs[source]
    config = config_of(**changes, init_from=str(workdir), init_optimizer=True)
    with pytest.raises(UserError, match=message) as error:
        start(tmp_path, config)
    assert "\n" not in str(error.value)
    assert str(workdir) in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.fast
def test_slots_of_no_run_are_refused():
    with pytest.raises(UserError, match=r"init_optimizer=True .* init_from=DIR"):
        check_source(config_of(init_optimizer=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_new_tensors_are_told_and_start_with_new_slots(runs, tmp_path, caplog, name):
    workdir, trained = runs[name]
    config = config_of(
        **TRAINED_BY[name], init_from=str(workdir), init_optimizer=True, moe__d_ff=32
    )
    state, _ = start(tmp_path, config)
    new = "blocks/layer_1/ffn/experts/wi, blocks/layer_1/ffn/experts/wo"
    assert f"new: {new}" in caplog.text
    ours, counts = slots(state)
    theirs, _ = slots(trained)
    for slot, value in ours.items():
        taken = "/experts/" not in slot.of
        expected = theirs[slot] if taken else np.zeros_like(value)
        np.testing.assert_array_equal(value, expected, err_msg=str(slot))
    # Adafactor counts for experts apart, and theirs are all new.
    apart = [count for path, count in counts.items() if "inner_states/2/" in path]
    assert len(apart) == (2 if name == "adafactor" else 0)
    assert not any(count.any() for count in apart)


@pytest.mark.slow
def test_a_run_with_frozen_parameters_trains_resumes_and_keeps_their_bits(tmp_path):
    config = config_of(optimizer__trainable="non_expert", optimizer__weight_decay=0.1)
    experiment = build_experiment(config, VOCABULARY)
    first, step = experiment.init(), experiment.train_step()
    initial = leaves(first.params)
    middle = advanced(experiment, step, first)
    save(tmp_path, experiment, middle)
    last = leaves(advanced(experiment, step, middle))

    with Checkpoints(tmp_path / "checkpoints", 1, 0) as checkpoints:
        restored = initial_state(experiment, checkpoints)
    assert restored.step == STEPS
    again = leaves(advanced(experiment, step, restored))
    for path, value in last.items():
        np.testing.assert_array_equal(again[path], value, err_msg=path)
    for path, value in initial.items():
        same = (last[f"params/{path}"] == value).all()
        assert same == ("/experts/" in path), path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_a_run_trains_on_with_the_slots_that_it_took(runs, tmp_path, name):
    workdir, _ = runs[name]
    other = {"init_from": str(workdir), "init_optimizer": True, "moe__d_ff": 32}
    config = config_of(**TRAINED_BY[name], **other)
    state, experiment = start(tmp_path, config)
    state = advanced(experiment, experiment.train_step(), state)
    assert state.step == STEPS
    _, counts = slots(state)
    assert max(count.max() for count in counts.values()) == 2 * STEPS
    assert all(np.isfinite(leaf).all() for leaf in leaves(state.params).values())


def test_slots_of_what_moves_live_where_the_parameters_do():
    config = config_of(optimizer__trainable="expert")
    abstract = build_experiment(config, VOCABULARY).abstract
    params = {
        path_name(path): leaf.sharding.spec
        for path, leaf in jax.tree_util.tree_flatten_with_path(abstract.params)[0]
    }
    placed = {
        path_name(path): leaf.sharding.spec
        for path, leaf in jax.tree_util.tree_flatten_with_path(abstract.opt_state)[0]
    }
    slots = name_slots(placed, params)
    found = {slot for slot in slots.values() if slot.kind != "count"}
    experts = [path for path in params if "/experts/" in path]
    assert found == {Slot(kind, path) for kind in ("mu", "nu") for path in experts}
    for path, slot in slots.items():
        if slot.kind != "count":
            assert placed[path] == params[slot.of]
            assert "expert" in placed[path]
