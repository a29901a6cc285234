"""Dense EASE solved in the space of users, for more items than fit in a dense matrix.

X P = (XX' + l2)^-1 X and P_jj = (1 - x_j' (XX' + l2)^-1 x_j) / l2 (Woodbury), so that scores
X B = X - X P diag(1 / P_jj) only need a matrix over users: 3.6 GB and 3 minutes on Gowalla.

    python dense_ease.py gowalla/train.txt [gowalla/test.txt] [l2 ...]

With one file, a tenth of its pairs is the test part, as in benches/gowalla.rs.
"""

import pathlib
import sys
import time

import numpy as np
import scipy.linalg
import scipy.sparse as sp


def pairs(path):
    out = []
    for line in pathlib.Path(path).read_text().splitlines():
        ids = [int(v) for v in line.split()]
        out += [(ids[0], i) for i in ids[1:]]
    return np.array(out, dtype=np.int64)


def held_out(p):
    z = (p.astype(np.uint64)[:, 0] << np.uint64(32) | p.astype(np.uint64)[:, 1])
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return (z ^ z >> np.uint64(31)) % np.uint64(10) == 0


files = [a for a in sys.argv[1:] if not a.replace(".", "").isdigit()]
grid = [float(a) for a in sys.argv[1:] if a.replace(".", "").isdigit()] or [30.0, 100.0]
train = pairs(files[0])
if len(files) > 1:
    test = pairs(files[1])
else:
    out = held_out(train)
    train, test = train[~out], train[out]
both = np.concatenate([train, test])
U, I = both.max(0) + 1
X = sp.csr_matrix((np.ones(len(train), np.float32), train.T), (U, I))
truth = sp.csr_matrix((np.ones(len(test), np.float32), test.T), (U, I))
print(f"{U} users, {I} items, {len(train)} + {len(test)} pairs")
for l2 in grid:
    start = time.time()
    K = (X @ X.T).toarray().astype(np.float32)
    K[np.diag_indices(U)] += l2
    K = scipy.linalg.cho_factor(K, lower=True, overwrite_a=True, check_finite=False)[0]
    inverse, info = scipy.linalg.lapack.spotri(K, lower=1, overwrite_c=1)
    assert info == 0
    lower = np.tril(inverse, -1)
    inverse = lower + lower.T + np.diag(inverse.diagonal())
    del lower, K
    Xc = X.tocsc()
    diagonal = np.empty(I)
    for j in range(I):
        r = Xc.indices[Xc.indptr[j]:Xc.indptr[j + 1]]
        diagonal[j] = (1 - inverse[np.ix_(r, r)].sum(dtype=np.float64)) / l2
    scale = (1 / diagonal).astype(np.float32)
    gain = 1 / np.log2(np.arange(20) + 2)
    sums, users = np.zeros(3), 0
    for first in range(0, U, 512):
        rows = slice(first, min(first + 512, U))
        # X P: the inverse's rows times X; the diagonal of P does not affect B.
        scores = X[rows].toarray() - (inverse[rows] @ X) * scale
        scores[X[rows].nonzero()] = -np.inf
        top = np.argpartition(-scores, 20, axis=1)[:, :20]
        order = np.argsort(-np.take_along_axis(scores, top, 1), axis=1, kind="stable")
        top = np.take_along_axis(top, order, 1)
        for row, ranked in enumerate(top):
            wanted = truth.indices[truth.indptr[first + row]:truth.indptr[first + row + 1]]
            if len(wanted) == 0:
                continue
            hit = np.isin(ranked, wanted)
            users += 1
            for n, k in enumerate([10, 20]):
                sums[n] += (gain[:k] * hit[:k]).sum() / gain[:min(k, len(wanted))].sum()
            sums[2] += hit.sum() / len(wanted)
    n10, n20, r20 = sums / users
    seconds = time.time() - start
    print(f"dense  l2 {l2:3.0f}  N@10 {n10:.4f}  N@20 {n20:.4f}  R@20 {r20:.4f}  {seconds:.0f} s",
          flush=True)
