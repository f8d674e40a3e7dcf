"""The capacity factor, the same in training and in evaluation.

Few slots drop tokens, many slots compute on nothing: the step time and the
dropped fraction say what a factor costs and what it saves.

    python -m experiments.sweep --config=configs/base.py \
        --sweep=configs/sweeps/capacity.py --seeds=5 --workdir=runs/capacity
"""

BASELINE = "capacity_1.25"

FACTORS = (0.5, 1.0, 1.25, 2.0)


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    del config  # the factors replace whatever it holds
    return {
        f"capacity_{factor}": {
            "moe.train_capacity_factor": factor,
            "moe.eval_capacity_factor": factor,
        }
        for factor in FACTORS
    }
