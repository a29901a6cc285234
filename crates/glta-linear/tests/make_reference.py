"""Writes reference.json: local EASE, its low-rank part, scores without one user, and text
neighbours, by the formulas in NumPy with float64.

    python make_reference.py
"""

import json
import pathlib

import numpy as np

rng = np.random.default_rng(5)
U, I, D, K, M, RANK = 60, 24, 6, 6, 5, 3
L2, ALPHA = 7.0, 4.0

taste = rng.normal(size=(U, 4)) @ rng.normal(size=(4, I))
X = (taste + rng.normal(size=(U, I)) > 1.6).astype(float)
X[:, 20] = 0.0  # no interactions
T = rng.normal(size=(I, D)).astype(np.float32)
T /= np.linalg.norm(T, axis=1, keepdims=True)
T[21] = 0.0  # no text
T[3] = T[4]  # a duplicate
T64 = T.astype(np.float64)

cos = T64 @ T64.T
np.fill_diagonal(cos, -1.0)


def best(ids, strength, k):
    """The k ids of largest strength; ties go to the lower id."""
    return sorted(sorted(ids, key=lambda i: (-strength[i], i))[:k])


def text_neighbours(m):
    return [best([i for i in range(I) if cos[j, i] > 0], cos[j], m) for j in range(I)]


def pruned(X, m):
    """Co-occurrence counts, each row cut to m entries; a pair counts if either row has it."""
    C = X.T @ X
    degree = C.diagonal().copy()
    np.fill_diagonal(C, 0)
    kept = np.zeros((I, I), bool)
    for j in range(I):
        strength = C[j] / np.sqrt(degree + 1)
        kept[j, best(np.flatnonzero(C[j]), strength, m)] = True
    return C, degree, kept


def gram(X, kept):
    C = X.T @ X
    degree = C.diagonal().copy()
    A = np.where(kept | kept.T, C, 0) + ALPHA * T64 @ T64.T
    np.fill_diagonal(A, degree + ALPHA * (T64 ** 2).sum(1) + L2)
    return A


def supports(X, m, near):
    C, _, kept = pruned(X, m)
    A = gram(X, kept)
    S = []
    for j in range(I):
        # Only the item's own row names candidates.
        own = np.where(kept[j], C[j], 0) + ALPHA * T64[j] @ T64.T
        strength = np.abs(own) / np.sqrt(A.diagonal())
        ids = sorted(set(np.flatnonzero(kept[j])) | set(near[j]))
        S.append(best(ids, strength, K))
    return A, kept, S


def local(A, S):
    B, P = np.zeros((I, I)), np.zeros(I)
    for j in range(I):
        s = S[j]
        b = np.linalg.solve(A[np.ix_(s, s)], A[s, j])
        B[s, j] = b
        P[j] = 1 / (A[j, j] - A[s, j] @ b)
    return B, P


def coarse(A, near):
    """Galerkin over each item's sources and the largest eigenvectors."""
    values, vectors = np.linalg.eigh(A)
    V, lam = vectors[:, -RANK:], values[-RANK:]
    R = A - V * lam @ V.T
    C = X.T @ X
    B, P = np.zeros((I, I)), np.zeros(I)
    for j in range(I):
        ids = sorted((set(np.flatnonzero(C[j])) | set(near[j])) - {j})
        s = best(ids, np.abs(R[j]) / np.sqrt(R.diagonal()), K)
        W = np.hstack([np.eye(I)[:, s + [j]], V])
        y = W @ np.linalg.solve(W.T @ A @ W, W.T[:, j])
        P[j] = y[j]
        B[:, j] = -y / y[j]
        B[j, j] = 0.0
    return B, P


near = text_neighbours(4)
A, kept, S = supports(X, M, near)
B, P = local(A, S)
full, _, full_S = supports(X, I, near)
full_B, full_P = local(full, full_S)

# A user is left out; sources and kept pairs stay.
user = int(np.argmax(X.sum(1)))
rest = X.copy()
rest[user] = 0
without, _ = local(gram(rest, kept), S)
own = np.flatnonzero(X[user])
context = own[::2]
coarse_B, coarse_P = coarse(full, near)

out = {
    "l2": L2,
    "alpha": ALPHA,
    "sources": K,
    "rows": M,
    "text_neighbours": 4,
    "rank": RANK,
    "users": U,
    "items": I,
    "pairs": np.argwhere(X > 0).tolist(),
    "vectors": T.tolist(),
    "near": near,
    "weights": B.tolist(),
    "diagonal": P.tolist(),
    "full_weights": full_B.tolist(),
    "full_diagonal": full_P.tolist(),
    "left_out": user,
    "context": context.tolist(),
    "without": [[int(j), float(without[context, j].sum())] for j in own],
    "coarse_weights": coarse_B.tolist(),
    "coarse_diagonal": coarse_P.tolist(),
}
path = pathlib.Path(__file__).with_name("reference.json")


def rounded(value):
    if isinstance(value, float):
        return float(f"{value:.9g}")
    return [rounded(v) for v in value] if isinstance(value, list) else value


path.write_text(json.dumps({k: rounded(v) for k, v in out.items()}, separators=(",", ":")) + "\n")
