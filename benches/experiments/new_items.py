"""Rules of the linear model for cold items: the table of docs/experiments.md, "The rule
for cold items".

Reads the files of a run of the example `amazon` with `--cold`, and uses its validation
items only. A share of the items with training interactions is taken out of the fit; all
their interactions are added to the validation items. Prints N@10, the mean over seeds
and draws, of all validation items, of the new items among all, and of the others.

    pip install numpy
    python new_items.py RUN [--seeds 2024,2025,2026] [--draws 2] [--share 0.0526]
"""

import argparse
import json
import pathlib
import struct

import numpy as np

parser = argparse.ArgumentParser()
parser.add_argument("run", type=pathlib.Path)
parser.add_argument("--seeds", default="2024,2025,2026")
parser.add_argument("--draws", type=int, default=2)
parser.add_argument("--share", type=float, default=0.0526)
args = parser.parse_args()

L2, TEXT, POPULARITY = 100, 10, 0.003
# Weight of text neighbours, whether it is divided by 1 + degree, and the value of
# ln(1 + degree) for an item without interactions: None for the mean of the others.
RULES = [
    (0.0, False, 0.0),
    (0.003, False, 0.0),
    (0.03, False, 0.0),
    (0.01, True, 0.0),
    (0.03, True, 0.0),
    (0.003, True, None),
    (0.01, True, None),
    (0.01, True, 2.0),
]


def tensor(path, name):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8 : 8 + length])[name]
    assert entry["dtype"] == "F32"
    start, end = entry["data_offsets"]
    flat = np.frombuffer(data[8 + length :][start:end], np.float32)
    return flat.reshape(entry["shape"]).astype(np.float64)


def ndcg(scores, seen, wanted, k=10):
    """Mean over the users with something wanted."""
    scores = np.where(seen > 0, -np.inf, scores)
    top = np.argsort(-scores, axis=1)[:, :k]
    discount = 1 / np.log2(np.arange(k) + 2)
    count = wanted.sum(1).astype(int)
    gain = (np.take_along_axis(wanted, top, 1) * discount).sum(1)
    best = np.concatenate([[0], discount.cumsum()])[np.minimum(count, k)]
    return (gain[count > 0] / best[count > 0]).mean()


found = {rule: [] for rule in RULES}
for seed in map(int, args.seeds.split(",")):
    folder = args.run / f"seed-{seed}" / "glta"
    texts = tensor(folder / "text_vectors.safetensors", "vectors")
    users = [json.loads(line) for line in open(folder / "users.jsonl")]
    train = np.zeros((len(users), len(texts)), np.float32)
    valid = np.zeros_like(train)
    for user in users:
        train[user["id"], user["train"]] = 1
        valid[user["id"], user["valid"]] = 1
    unit = texts / np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-9)
    near = (np.maximum(unit @ unit.T, 0) ** 3).astype(np.float32)
    np.fill_diagonal(near, 0)
    for draw in range(args.draws):
        rng = np.random.default_rng(seed * 10 + draw)
        had = np.flatnonzero(train.sum(0) > 0)
        new = rng.choice(had, round(len(had) * args.share), replace=False)
        seen, wanted = train.copy(), valid.copy()
        wanted[:, new] = np.maximum(wanted[:, new], seen[:, new])
        seen[:, new] = 0
        degree = seen.sum(0)
        cold = wanted * (degree == 0)
        gram = seen.T.astype(np.float64) @ seen + TEXT * (texts @ texts.T)
        gram[np.diag_indices(len(gram))] += L2
        inverse = np.linalg.inv(gram)
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0)
        linear = seen @ weights.astype(np.float32)
        neighbours = seen @ near
        for weight, divided, absent in RULES:
            popularity = np.log1p(degree)
            mean = popularity[degree > 0].mean() if absent is None else absent
            popularity = np.where(degree == 0, mean, popularity)
            beside = neighbours / (1 + degree) if divided else neighbours
            scores = linear + weight * beside + POPULARITY * popularity
            found[weight, divided, absent].append(
                [ndcg(scores, seen, part) for part in (wanted, cold, wanted - cold)]
            )

print("| neighbours | popularity of new items | all | new among all | others |")
print("|---|---|---:|---:|---:|")
for (weight, divided, absent), values in found.items():
    neighbours = f"{weight:g}" + (" / (1 + degree)" if divided else "")
    absent = "the mean" if absent is None else f"{absent:g}"
    print(f"| {neighbours} | {absent} | " + " | ".join(f"{v:.4f}" for v in np.mean(values, 0)) + " |")
