"""The table of several runs of one example as if they were one run, for seeds or systems
that were run separately, each with its own --out.

Prints the mean and standard deviation over seeds of every system that all seeds have.
Then prints the difference between the system of --against and each other system, paired
over users, each user's mean over the seeds (two-sided test, normal approximation). If
several runs have the same system and seed, the first run counts.

    python join_runs.py RUN [RUN ...] [--against GLTA] [--systems A,B]
"""

import argparse
import json
import math
import pathlib
import statistics
import sys

parser = argparse.ArgumentParser()
parser.add_argument("runs", nargs="+", type=pathlib.Path)
parser.add_argument("--against", default="GLTA")
parser.add_argument("--systems", help="only these, in this order")
args = parser.parse_args()

METRICS = ["P@5", "P@10", "N@5", "N@10", "R@20", "N@20", "valid_N@10"]
rows, order, dataset = {}, [], None
for run in args.runs:
    record = json.loads((run / "metrics.json").read_text())
    dataset = dataset or record["dataset"]
    if record["dataset"] != dataset:
        raise SystemExit(f"{run} was run on other data than {args.runs[0]}")
    for row in record["rows"]:
        rows.setdefault((row["system"], row["seed"]), (run, row))
        if row["system"] not in order:
            order.append(row["system"])
seeds = sorted({seed for _, seed in rows})
systems = args.systems.split(",") if args.systems else order
part = [s for s in systems if not all((s, seed) in rows for seed in seeds)]
systems = [s for s in systems if s not in part]
if part:
    print(f"left out, not of all seeds: {', '.join(part)}", file=sys.stderr)
if args.against not in systems:
    raise SystemExit(f"--against {args.against}: there are {', '.join(systems) or 'no systems'}")


def short(value, digits=4):
    return f"{value:.{digits}f}".replace("0.", ".", 1)


def spread(values):
    mean = short(statistics.mean(values))
    return mean + (f" ± {short(statistics.stdev(values))}" if len(values) > 1 else "")


def users(system, seed):
    """Each user's metrics."""
    run, _ = rows[system, seed]
    name = "".join(c if c.isascii() and c.isalnum() or c == "+" else "-" for c in system.lower())
    with open(run / f"seed-{seed}" / "users" / f"{name}.jsonl") as lines:
        return {result["user"]: result for result in map(json.loads, lines)}


print(f"seeds {seeds}\n\n| system | " + " | ".join(METRICS) + " |")
print("|---|" + "---:|" * len(METRICS))
for system in systems:
    of = [rows[system, seed][1] for seed in seeds]
    cells = (spread([row[m] for row in of]) if m in of[0] else "" for m in METRICS)
    print(f"| {system} | " + " | ".join(cells) + " |")

print(f"\n{args.against} minus the other:\n\n| against | N@10 | s.e. | p | N@20 | s.e. | p | users |")
print("|---|---:|---:|---:|---:|---:|---:|---:|")
for system in systems:
    if system == args.against:
        continue
    cells = []
    for metric in ["N@10", "N@20"]:
        by_user = {}
        for seed in seeds:
            own, other = users(args.against, seed), users(system, seed)
            assert own.keys() == other.keys(), f"{system}, seed {seed}: other users"
            for user, result in own.items():
                by_user.setdefault(user, []).append(result[metric] - other[user][metric])
        # The same user with another seed is not a new observation.
        differences = [statistics.mean(values) for values in by_user.values()]
        mean = statistics.mean(differences)
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        p = math.erfc(abs(mean) / error / math.sqrt(2)) if error > 0 else 1.0
        cells += [f"{mean:+.4f}".replace("0.", ".", 1), short(error), f"{p:.0e}"]
    print(f"| {system} | " + " | ".join(cells) + f" | {len(differences)} |")
for system in systems:
    settings = {seed: rows[system, seed][1].get("settings") for seed in seeds}
    print(f"\n{system}: " + "; ".join(f"{seed}: {of}" for seed, of in settings.items() if of))
