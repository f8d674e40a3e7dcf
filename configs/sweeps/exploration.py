"""How a Switch router explores (Switch, Table 11).

Arms:
  argmax            the best expert (baseline)
  sample            an expert drawn from the softmax
  input_dropout     dropout of 0.1 on the inputs of the router
  input_jitter      inputs of the router times U[0.99, 1.01]
  logit_jitter      logits of the router times U[0.99, 1.01]

Source: Fedus et al. 2021, arXiv:2101.03961, appendix C.

    python -m experiments.sweep --config=configs/quickstart.py \
        --sweep=configs/sweeps/exploration.py --seeds=5 --workdir=runs/exploration
"""

from configs.overrides import router

BASELINE = "argmax"


def get_sweep(config):
    """Returns arm name -> overrides of `config`."""
    calm = {"moe.jitter": 0.0, "moe.router_input_dropout": 0.0}
    switch = {**router("switch", 1), **calm}
    jitter = {**switch, "moe.jitter": 0.01}
    return {
        "argmax": switch,
        "sample": {**router("switch", 1, exploration="sample"), **calm},
        "input_dropout": {**switch, "moe.router_input_dropout": 0.1},
        "input_jitter": {**jitter, "moe.jitter_target": "inputs"},
        "logit_jitter": {**jitter, "moe.jitter_target": "logits"},
    }
