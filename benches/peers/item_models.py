"""Compares item models with the linear model in one run, on gowalla and on generated items.

    pip install numpy scipy implicit
    pip install 'scikit-sparse<0.4.17' sansa   # needs SuiteSparse's headers (libsuitesparse-dev)
    python benches/peers/item_models.py --gowalla FOLDER [--items 100000] [--work FOLDER]

FOLDER has LightGCN's published train.txt and test.txt, plain or gzipped. The generated data are
those of benches/scale.rs; items of a twentieth of the users are held out. For every model a few
settings are tried on a tenth of each user's training items, and the best by R@20 is fitted on all
of them (ours by N@10). Each model runs in its own process. The script prints a table.
"""

import argparse
import gzip
import importlib.metadata
import json
import logging
import os
import pathlib
import resource
import subprocess
import sys
import time

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import scipy.sparse as sp

K = 20
MOST_VALIDATED = 10_000
ROOT = pathlib.Path(__file__).resolve().parents[2]


def lists(path):
    opener = gzip.open if path.suffix == ".gz" else open
    users, items = [], []
    with opener(path, "rt") as lines:
        for line in lines:
            ids = [int(v) for v in line.split()]
            users += [ids[0]] * (len(ids) - 1)
            items += ids[1:]
    return np.array(users, np.int64), np.array(items, np.int64)


def write_lists(path, matrix):
    with open(path, "w") as out:
        for user in range(matrix.shape[0]):
            own = matrix.indices[matrix.indptr[user]:matrix.indptr[user + 1]]
            if len(own):
                out.write(f"{user} {' '.join(map(str, own))}\n")


def matrix(pairs, shape):
    users, items = pairs
    m = sp.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)
    m.data[:] = 1
    m.sort_indices()
    return m


def load(folder):
    train, test = lists(folder / "train.txt"), lists(folder / "test.txt")
    shape = tuple(max(train[k].max(), test[k].max()) + 1 for k in (0, 1))
    fit, valid = lists(folder / "fit.txt"), lists(folder / "valid.txt")
    return [matrix(pairs, shape) for pairs in (train, test, fit, valid)]


def split(folder):
    """A tenth of each person's training items, at least one of five, for the choice."""
    train, test = lists(folder / "train.txt"), lists(folder / "test.txt")
    shape = tuple(max(train[k].max(), test[k].max()) + 1 for k in (0, 1))
    train = matrix(train, shape)
    random = np.random.default_rng(2024)
    held = np.zeros(train.nnz, bool)
    for user in range(shape[0]):
        start, end = train.indptr[user], train.indptr[user + 1]
        count = max((end - start) // 10, int(end - start >= 5))
        held[start + random.permutation(end - start)[:count]] = True
    coo = train.tocoo()
    write_lists(folder / "fit.txt", matrix((coo.row[~held], coo.col[~held]), shape))
    write_lists(folder / "valid.txt", matrix((coo.row[held], coo.col[held]), shape))


def measured(top, train, test, users):
    """R@20 and N@20 of lists `top(users)`, training items left out."""
    gains = 1 / np.log2(np.arange(2, K + 2))
    recall = ndcg = 0.0
    for start in range(0, len(users), 500):
        block = users[start:start + 500]
        for user, ids in zip(block, top(block)):
            wanted = test.indices[test.indptr[user]:test.indptr[user + 1]]
            hits = np.isin(ids[:K], wanted)
            recall += hits.sum() / len(wanted)
            ndcg += (hits * gains[:len(hits)]).sum() / gains[:min(K, len(wanted))].sum()
    return recall / len(users), ndcg / len(users)


def implicit_model(make):
    def fit(train):
        model = make()
        model.fit(train, show_progress=False)

        def top(users):
            return model.recommend(users, train[users], N=K, filter_already_liked_items=True)[0]
        return top
    return fit


def als(factors, regularization, alpha):
    from implicit.als import AlternatingLeastSquares
    return implicit_model(lambda: AlternatingLeastSquares(
        factors=factors, regularization=regularization, alpha=alpha, iterations=15,
        random_state=1))


def knn(kind, k):
    from implicit import nearest_neighbours as near
    make = {"cosine": near.CosineRecommender, "tf-idf": near.TFIDFRecommender,
            "bm25": near.BM25Recommender}[kind]
    return implicit_model(lambda: make(K=k))


def sansa(l2, density):
    from sansa import (SANSA, ICFGramianFactorizerConfig, SANSAConfig,
                       UMRUnitLowerTriangleInverterConfig)

    logging.getLogger("sansa").setLevel(logging.ERROR)

    def fit(train):
        config = SANSAConfig(
            l2=l2, weight_matrix_density=density,
            gramian_factorizer_config=ICFGramianFactorizerConfig(
                factorization_shift_step=1e-3, factorization_shift_multiplier=2.0),
            lower_triangle_inverter_config=UMRUnitLowerTriangleInverterConfig(
                scans=1, finetune_steps=5))
        model = SANSA(config)
        # It fails on items without interactions.
        had = np.flatnonzero(np.diff(train.tocsc().indptr))
        known_items = train[:, had]
        model.fit(known_items)
        W, Z = model.weights

        def top(users):
            known = known_items[users]
            scores = ((known @ W) @ Z).toarray()
            scores[known.nonzero()] = -np.inf
            best = np.argpartition(-scores, K, axis=1)[:, :K]
            order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
            return had[np.take_along_axis(best, order, 1)]
        return top
    return fit


def grid(name, items):
    if name == "als":
        return [(als, s) for s in [(64, .01, 1.), (64, .01, 10.), (128, .1, 1.), (128, .1, 10.),
                                   (256, .1, 10.)]]
    if name == "knn":
        return [(knn, (kind, k)) for kind in ("cosine", "tf-idf", "bm25") for k in (50, 200)]
    # Its two factors have as many weights as the local form with 64 sources.
    return [(sansa, (l2, 64 / items)) for l2 in (1., 3., 10., 30.)]


def run(name, folder):
    train, test, fit, valid = load(folder)
    random = np.random.default_rng(1)
    able = np.flatnonzero(np.diff(valid.indptr))
    users = np.sort(random.permutation(able)[:MOST_VALIDATED])
    best, spent = None, time.process_time()
    for make, settings in grid(name, train.shape[1]):
        value = measured(make(*settings)(fit), fit, valid, users)[0]
        print(f"  {name} {settings}: validation R@20 {value:.4f}", file=sys.stderr, flush=True)
        if best is None or value > best[0]:
            best = (value, make, settings)
    choose = time.process_time() - spent
    cpu, wall = time.process_time(), time.time()
    top = best[1](*best[2])(train)
    fit_cpu, fit_seconds = time.process_time() - cpu, time.time() - wall
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    start = time.time()
    recall, ndcg = measured(top, train, test, np.flatnonzero(np.diff(test.indptr)))
    print(json.dumps({
        "settings": str(best[2]), "choose_cpu_seconds": round(choose, 1),
        "fit_cpu_seconds": round(fit_cpu, 1), "fit_seconds": round(fit_seconds, 1),
        "peak_mb": round(peak), "lists_seconds": round(time.time() - start, 1),
        "recall_20": round(recall, 4), "ndcg_20": round(ndcg, 4)}))


def last_line(command):
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gowalla", type=pathlib.Path)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("item-models"))
    parser.add_argument("--model")
    parser.add_argument("--data", type=pathlib.Path)
    args = parser.parse_args()
    if args.model:
        return run(args.model, args.data)
    ours = ["cargo", "bench", "-q", "-p", "glta-linear", "--bench", "lists", "--"]
    data = {}
    if args.gowalla:
        data["gowalla"] = args.work.resolve() / "gowalla"
        data["gowalla"].mkdir(parents=True, exist_ok=True)
        for name in ("train.txt", "test.txt"):
            source = args.gowalla / name
            opened = open(source) if source.exists() else gzip.open(f"{source}.gz", "rt")
            (data["gowalla"] / name).write_text(opened.read())
    if args.items:
        generated = data[f"generated {args.items}"] = args.work.resolve() / "generated"
        write = [*ours, "--write", str(generated), "--items", str(args.items)]
        subprocess.run(write, cwd=ROOT, check=True)
    versions = {}
    for package in ("implicit", "sansa", "scikit-sparse", "numpy", "scipy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    print(", ".join(f"{k} {v or 'missing'}" for k, v in versions.items()), flush=True)
    print("| data | model | settings | choice, CPU s | fit, CPU s | fit, s | peak, MB "
          "| lists, s | R@20 | N@20 |\n|---|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for name, folder in data.items():
        split(folder)
        rows = [("ours", [*ours, "--data", str(folder)])]
        if (folder / "text.npy").exists():
            rows.append(("ours, with texts", rows[0][1] + ["--text", str(folder / "text.npy")]))
        for model in ("als", "knn", "sansa"):
            if model == "sansa" and not versions["sansa"]:
                continue
            command = [sys.executable, __file__, "--model", model, "--data", str(folder)]
            rows.append((model, command))
        for model, command in rows:
            got = last_line(command)
            if got is None:
                print(f"| {name} | {model} | failed |" + " |" * 7, flush=True)
                continue
            fields = ("settings", "choose_cpu_seconds", "fit_cpu_seconds", "fit_seconds",
                      "peak_mb", "lists_seconds", "recall_20", "ndcg_20")
            print(f"| {name} | {model} | " + " | ".join(str(got[f]) for f in fields) + " |",
                  flush=True)


if __name__ == "__main__":
    main()
