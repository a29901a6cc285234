"""Makes reference.json: metric values of pytrec_eval and RecBole.

    python -m venv venv
    venv/bin/pip install pytrec_eval-terrier scipy scikit-learn
    venv/bin/pip install --no-deps recbole==1.2.1
    venv/bin/python make_reference.py            # writes reference.json
    venv/bin/python make_reference.py ML100K_DIR # also prints real-data means

RecBole's metric classes are plain numpy, but its package imports torch and more
on the way; what is not installed is replaced by an empty module.
The t-test numbers in src/compare.rs are scipy.stats.ttest_rel on the series of
the linear congruential generator written there; they are printed too.
"""

import functools
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytrec_eval
from scipy import stats

np.float = float  # RecBole 1.2.1 still uses the name numpy dropped

KS = [3, 5, 10]
USERS, ITEMS = 40, 30


@functools.cache
def recbole_metrics():
    """recbole.evaluator.metrics without the rest of the package."""
    root = Path(importlib.util.find_spec("recbole").submodule_search_locations[0])
    for name in ["recbole", "recbole.evaluator", "recbole.utils"]:
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    if importlib.util.find_spec("torch") is None:
        sys.modules["torch"] = types.ModuleType("torch")

    def load(name, path):
        spec = importlib.util.spec_from_file_location(name, root / path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    enums = load("recbole.utils.enum_type", "utils/enum_type.py")
    sys.modules["recbole.utils"].EvaluatorType = enums.EvaluatorType
    load("recbole.evaluator.utils", "evaluator/utils.py")
    load("recbole.evaluator.base_metric", "evaluator/base_metric.py")
    return load("recbole.evaluator.metrics", "evaluator/metrics.py")


def rank(scores, masked, k):
    """Best first, ties by lower item, masked items left out."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    return [i for i in order if i not in masked][:k]


def measure(rankings, truth, n_items, degrees, ks):
    """{"trec": {name: [per user]}, "recbole": ...} for users with truth."""
    config = {"topk": ks, "metric_decimal_place": 12}
    module = recbole_metrics()
    users = [u for u in range(len(truth)) if truth[u]]
    most = max(ks)
    hits = np.zeros((len(users), most), dtype=bool)
    for row, u in enumerate(users):
        for r, item in enumerate(rankings[u]):
            hits[row, r] = item in truth[u]
    lengths = np.array([len(truth[u]) for u in users])
    recbole = {}
    for name, cls in [("P", "Precision"), ("R", "Recall"), ("N", "NDCG"),
                      ("H", "Hit"), ("MRR", "MRR"), ("MAP", "MAP")]:
        metric = getattr(module, cls)(config)
        needs_lengths = cls in ("Recall", "NDCG", "MAP")
        values = metric.metric_info(hits, lengths) if needs_lengths else metric.metric_info(hits)
        for k in ks:
            recbole[f"{name}@{k}"] = [float(v) for v in values[:, k - 1]]

    trec = {}
    for k in ks:
        # A run is scores by document; descending scores give our order.
        run = {str(u): {str(i): float(1000 - r) for r, i in enumerate(rankings[u][:k])} for u in users}
        qrels = {str(u): {str(i): 1 for i in truth[u]} for u in users}
        names = {f"P_{k}": "P", f"recall_{k}": "R", f"ndcg_cut_{k}": "N",
                 f"success_{k}": "H", f"map_cut_{k}": "MAPcut", "recip_rank": "MRR"}
        asked = {f"P.{k}", f"recall.{k}", f"ndcg_cut.{k}", f"success.{k}", f"map_cut.{k}", "recip_rank"}
        result = pytrec_eval.RelevanceEvaluator(qrels, asked).evaluate(run)
        for theirs, ours in names.items():
            # A user without any ranked item is missing from the result.
            trec[f"{ours}@{k}"] = [result.get(str(u), {}).get(theirs, 0.0) for u in users]

    lists = {}
    for k in ks:
        shown = [rankings[u][:k] for u in users]
        if any(len(r) < k for r in shown):
            continue  # RecBole knows full lists only.
        matrix = np.array(shown)
        lists[f"coverage@{k}"] = module.ItemCoverage(config).get_coverage(matrix, n_items)
        lists[f"gini@{k}"] = float(module.GiniIndex(config).get_gini(matrix, n_items))
        popularity = module.AveragePopularity(config)
        values = popularity.metric_info(popularity.get_pop(matrix.astype(float), dict(enumerate(degrees))))
        lists[f"popularity@{k}"] = float(values[:, k - 1].mean())
    return users, trec, recbole, lists


def generated(rng, short):
    """Scores of few levels, so that most are tied; optionally short lists."""
    scores = rng.integers(0, 10, size=(USERS, ITEMS))
    masked, truth = [], []
    for u in range(USERS):
        items = rng.permutation(ITEMS)
        n_truth = int(rng.integers(0, 13))
        n_masked = int(rng.integers(15, ITEMS - n_truth + 1)) if short else int(rng.integers(0, 8))
        truth.append(sorted(int(i) for i in items[:n_truth]))
        masked.append(sorted(int(i) for i in items[n_truth : n_truth + n_masked]))
    degrees = [sum(i in m for m in masked) for i in range(ITEMS)]
    rankings = [rank(scores[u], set(masked[u]), max(KS)) for u in range(USERS)]
    users, trec, recbole, lists = measure(rankings, truth, ITEMS, degrees, KS)
    round_all = lambda table: {n: [round(v, 9) for v in vs] for n, vs in table.items()}
    return {
        "scores": ["".join(map(str, row)) for row in scores],
        "masked": masked,
        "truth": truth,
        "users": users,
        "pytrec_eval": round_all(trec),
        "recbole": round_all(recbole),
        "lists": lists,
    }


def popularity_on_ml_100k(folder):
    """Means for a popularity ranking; test items are those with (7u + 13i) % 5 == 0."""
    train, truth = {}, {}
    users, items = {}, {}
    for line in open(Path(folder) / "u.data"):
        user, item = line.split("\t")[:2]
        u = users.setdefault(user, len(users))
        i = items.setdefault(item, len(items))
        part = truth if (7 * int(user) + 13 * int(item)) % 5 == 0 else train
        part.setdefault(u, set()).add(i)
    degrees = [0] * len(items)
    for seen in train.values():
        for i in seen:
            degrees[i] += 1
    n = len(users)
    ks = [5, 10, 20]
    rankings = [rank(degrees, train.get(u, set()), 20) for u in range(n)]
    truth = [sorted(truth.get(u, [])) for u in range(n)]
    _, trec, recbole, lists = measure(rankings, truth, len(items), degrees, ks)
    for table in (trec, recbole):
        print({name: round(float(np.mean(values)), 9) for name, values in table.items()})
    print({name: round(value, 9) for name, value in lists.items()})


def t_tests():
    for n, shift in [(2, 0.0), (30, 0.1), (1000, 0.1)]:
        state, values = 12345, []
        for _ in range(2 * n):
            state = (1103515245 * state + 12345) % (1 << 31)
            values.append(state / (1 << 31))
        result = stats.ttest_rel([v + shift for v in values[:n]], values[n:])
        print((n, shift, float(result.statistic), float(result.pvalue)))


if __name__ == "__main__":
    rng = np.random.default_rng(2024)
    fixture = {"ks": KS, "full": generated(rng, False), "short": generated(rng, True)}
    path = Path(__file__).with_name("reference.json")
    path.write_text(json.dumps(fixture, separators=(",", ":")) + "\n")
    t_tests()
    if len(sys.argv) > 1:
        popularity_on_ml_100k(sys.argv[1])
