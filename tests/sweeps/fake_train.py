"""A stand-in for the train command: writes what a run writes, trains nothing.

The arm's moe.d_ff decides what happens: 13 fails, 14 diverges at the first start
only, 15 waits for SIGTERM and says that it was preempted.
"""

import argparse
import json
import pathlib
import signal
import sys
import time


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--workdir", type=pathlib.Path)
    args = parser.parse_args()
    config = json.loads(pathlib.Path(args.config).read_text())
    kind, last = config["moe"]["d_ff"], config["train"]["num_steps"]
    started_before = (args.workdir / "config.json").exists()
    args.workdir.mkdir(parents=True, exist_ok=True)
    (args.workdir / "config.json").write_text(json.dumps(config))
    with open(args.workdir / "starts.txt", "a") as file:
        file.write("start\n")

    def summarize(status, step, **more):
        summary = {"status": status, "step": step, **more}
        (args.workdir / "summary.json").write_text(json.dumps(summary))

    if kind == 13:
        print("line 1\nout of memory")
        sys.exit(1)
    if kind == 14 and not started_before:
        summarize("failed", 1)
        sys.exit(2)
    if kind == 15 and not started_before:

        def stop(*_):
            summarize("preempted", 1)
            sys.exit(0)

        signal.signal(signal.SIGTERM, stop)
        (args.workdir / "ready").touch()
        time.sleep(60)
    speed = 4096 / kind
    line = {"step": last, "split": "train"}
    line["throughput/tokens_per_second_per_device"] = speed
    (args.workdir / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    loss = 2.0 + 0.1 * config["seed"] + kind / 1000
    more = {"parameters/active": 10 * kind, "parameters/total": 80 * kind}
    if "moe" in config["model"]["block_pattern"]:
        more |= {"train/router/dropped": 0.125, "router/dropped": 0.0}
    summarize(
        "finished",
        last,
        seconds=1.5,
        data_fingerprint="f00d",
        **{"loss/cross_entropy": loss, "loss/bits_per_byte": loss, **more},
        **{"loss/perplexity": 2**loss, "flops_per_token/training": 100 * kind},
    )


main()
