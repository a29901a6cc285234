"""CPU and wall seconds of a LightGCN training epoch in RecBole, for comparison
with `cargo bench --bench epoch -- --files TRAIN`.

As all batches cost the same, some are timed and scaled to the epoch.

    pip install recbole==1.2.1
    python lightgcn_recbole.py TRAIN [--batches 20] [--threads 2]

TRAIN holds lines `user item item ...`, plain or gzipped.
"""

import argparse
import gzip
import itertools
import os
import sys
import tempfile
import time

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import LightGCN

parser = argparse.ArgumentParser()
parser.add_argument("train")
parser.add_argument("--batches", type=int, default=20)
parser.add_argument("--batch", type=int, default=2048)
parser.add_argument("--threads", type=int, default=os.cpu_count())
args = parser.parse_args()
sys.argv = sys.argv[:1]  # RecBole reads the command line as well.

opener = gzip.open if args.train.endswith(".gz") else open
folder = tempfile.mkdtemp()
os.mkdir(f"{folder}/peer")
interactions = 0
with opener(args.train, "rt") as lines, open(f"{folder}/peer/peer.inter", "w") as out:
    out.write("user_id:token\titem_id:token\n")
    for line in lines:
        user, *items = line.split()
        interactions += len(items)
        out.writelines(f"{user}\t{item}\n" for item in items)

config = Config(
    model="LightGCN",
    dataset="peer",
    config_dict={
        "data_path": folder,
        "load_col": {"inter": ["user_id", "item_id"]},
        "train_batch_size": args.batch,
        "embedding_size": 64,
        "n_layers": 3,
        "reg_weight": 1e-4,
        "use_gpu": False,
        "eval_args": {
            "split": {"RS": [0.98, 0.01, 0.01]},
            "order": "RO",
            "group_by": None,
            "mode": "full",
        },
    },
)
torch.set_num_threads(args.threads)
dataset = create_dataset(config)
train, _, _ = data_preparation(config, dataset)
model = LightGCN(config, train.dataset)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
model.train()


def step(batch):
    optimizer.zero_grad()
    model.calculate_loss(batch).backward()
    optimizer.step()


n_batches = -(-interactions // args.batch)
timed_batches = min(args.batches, n_batches)
batches = iter(train)
step(next(batches))
cpu, wall = time.process_time(), time.perf_counter()
for batch in itertools.islice(batches, timed_batches):
    step(batch)
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
scale = n_batches / timed_batches
print(
    f"epoch of {n_batches} batches on {args.threads} threads:"
    f" {cpu * scale:.1f} s CPU, {wall * scale:.1f} s wall, sampling included"
)
