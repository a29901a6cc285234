"""CPU and wall seconds of a LightGCN training epoch in PyTorch, for comparison
with `cargo bench --bench epoch -- --files TRAIN`.

Written like the reference implementation (gusye1234/LightGCN-PyTorch): the
normalised adjacency is a sparse tensor, every batch of 2048 BPR triples
propagates all embeddings through three layers with `torch.sparse.mm`, autograd
makes the gradients, `torch.optim.Adam` the step, and uniform users, positives
and negatives are drawn with NumPy for the whole epoch at once. As batches cost
the same, some are timed and scaled to the epoch.

    pip install torch numpy scipy
    python lightgcn_torch.py TRAIN [--batches 20] [--threads 2]

TRAIN holds lines `user item item ...`, plain or gzipped.
"""

import argparse
import gzip
import os
import time

import numpy as np
import scipy.sparse as sp
import torch

parser = argparse.ArgumentParser()
parser.add_argument("train")
parser.add_argument("--batches", type=int, default=20)
parser.add_argument("--batch", type=int, default=2048)
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--layers", type=int, default=3)
parser.add_argument("--dim", type=int, default=64)
args = parser.parse_args()
torch.set_num_threads(args.threads)

opener = gzip.open if args.train.endswith(".gz") else open
positives = {}
with opener(args.train, "rt") as lines:
    for line in lines:
        user, *items = map(int, line.split())
        if items:
            positives[user] = np.array(items)
users = max(positives) + 1
items = max(int(p.max()) for p in positives.values()) + 1
rows = np.repeat(list(positives), [len(p) for p in positives.values()])
columns = np.concatenate(list(positives.values()))
interactions = len(rows)
matrix = sp.coo_matrix((np.ones(interactions), (rows, columns + users)), (users + items,) * 2)
matrix = (matrix + matrix.T).tocsr()
degrees = np.asarray(matrix.sum(1)).ravel()
root = sp.diags(np.divide(1, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0))
matrix = (root @ matrix @ root).tocoo()
graph = torch.sparse_coo_tensor(
    np.stack([matrix.row, matrix.col]), matrix.data.astype(np.float32), matrix.shape
).coalesce()

embedding_users = torch.nn.Embedding(users, args.dim)
embedding_items = torch.nn.Embedding(items, args.dim)
torch.nn.init.normal_(embedding_users.weight, std=0.1)
torch.nn.init.normal_(embedding_items.weight, std=0.1)
parameters = [embedding_users.weight, embedding_items.weight]
optimizer = torch.optim.Adam(parameters, lr=1e-3)


def sample(n):
    """`n` triples: uniform user, one of its items, an item it does not have."""
    known = {user: set(p.tolist()) for user, p in positives.items()}
    triples = []
    for user in np.random.choice(list(positives), n):
        positive = np.random.choice(positives[user])
        while (negative := np.random.randint(items)) in known[user]:
            pass
        triples.append((user, positive, negative))
    return torch.tensor(np.array(triples))


def step(triples):
    layers = [torch.cat(parameters)]
    for _ in range(args.layers):
        layers.append(torch.sparse.mm(graph, layers[-1]))
    out = torch.stack(layers, 1).mean(1)
    out_users, out_items = out.split([users, items])
    u, i, j = triples.T
    positive = (out_users[u] * out_items[i]).sum(1)
    negative = (out_users[u] * out_items[j]).sum(1)
    norm = sum(e.square().sum() for e in (embedding_users(u), embedding_items(i), embedding_items(j)))
    loss = torch.nn.functional.softplus(negative - positive).mean() + 1e-4 * 0.5 * norm / len(u)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def timed(work):
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, time.process_time() - cpu, time.perf_counter() - wall


n_batches = -(-interactions // args.batch)
print(f"{users} users, {items} items, {interactions} interactions, {n_batches} batches an epoch")
timed_batches = min(args.batches, n_batches)
triples, cpu_sampling, wall_sampling = timed(lambda: sample(timed_batches * args.batch))
batches = triples.split(args.batch)
step(batches[0])
_, cpu, wall = timed(lambda: [step(batch) for batch in batches])
scale = n_batches / timed_batches
print(
    f"epoch on {args.threads} threads: {cpu * scale:.1f} s CPU, {wall * scale:.1f} s wall"
    f" without sampling; sampling {cpu_sampling * scale:.1f} s CPU"
)
