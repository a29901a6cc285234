"""`implicit` behind a small ASGI app, to compare with `glta serve` on the same generated shop.

    python serve_implicit.py make DIR --items 100000 --users 100000
    python serve_implicit.py serve DIR --port 8090

`make` writes orders.csv and products.csv, which `glta fit` reads too. `serve` fits ALS on the
orders and answers GET /users and POST /recommend as `glta serve` does, so that `serve_load` puts
the same load on both. Needs: pip install implicit uvicorn numpy scipy
"""

import argparse
import csv
import json
import os
import time

import numpy as np

KINDS = ["Tea", "Coffee", "Mugs", "Lamps", "Chairs", "Books", "Games", "Tools", "Shoes", "Bags"]
MAKERS = ["Aster", "Birch", "Cedar", "Dahlia", "Elm", "Fern", "Gorse", "Hazel"]


def make(folder, items, users, orders):
    """Customers who mostly buy of two kinds, popular products more often."""
    os.makedirs(folder, exist_ok=True)
    random = np.random.default_rng(1)
    kind = random.integers(len(KINDS), size=items)
    weight = 1.0 / (1.0 + random.permutation(items)) ** 0.7
    of_kind = [np.flatnonzero(kind == k) for k in range(len(KINDS))]
    steps = [np.cumsum(weight[of]) / weight[of].sum() for of in of_kind]
    with open(os.path.join(folder, "products.csv"), "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["product", "name", "category", "maker"])
        makers = random.integers(len(MAKERS), size=items)
        for item in range(items):
            name = f"{MAKERS[makers[item]]} {KINDS[kind[item]].lower()} no {item}"
            out.writerow([f"p{item}", name, KINDS[kind[item]], MAKERS[makers[item]]])
    with open(os.path.join(folder, "orders.csv"), "w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["customer", "product"])
        for user in range(users):
            likes = random.integers(len(KINDS), size=2)
            count = 2 + random.geometric(1.0 / orders)
            kinds = np.where(random.random(count) < 0.8, random.choice(likes, size=count),
                             random.integers(len(KINDS), size=count))
            # Neighbours in the catalogue are bought together.
            at = (random.random() + 0.05 * random.random(count)) % 1.0
            at = np.where(random.random(count) < 0.5, at, random.random(count))
            bought = {int(of_kind[k][min(np.searchsorted(steps[k], a), len(of_kind[k]) - 1)])
                      for k, a in zip(kinds, at)}
            out.writerows((f"c{user}", f"p{item}") for item in sorted(bought))


def load(folder):
    """User ids, items with their columns, and the matrix of users and items."""
    from scipy.sparse import csr_matrix

    with open(os.path.join(folder, "products.csv"), newline="") as file:
        products = list(csv.DictReader(file))
    item_ids = {product["product"]: n for n, product in enumerate(products)}
    users, rows, columns = {}, [], []
    with open(os.path.join(folder, "orders.csv"), newline="") as file:
        for order in csv.DictReader(file):
            rows.append(users.setdefault(order["customer"], len(users)))
            columns.append(item_ids[order["product"]])
    values = np.ones(len(rows), dtype=np.float32)
    matrix = csr_matrix((values, (rows, columns)), shape=(len(users), len(products)))
    return users, products, matrix


def app(folder):
    """The application: known users only, lists with titles."""
    from implicit.als import AlternatingLeastSquares

    users, products, matrix = load(folder)
    started = time.time()
    model = AlternatingLeastSquares(factors=64, iterations=15, random_state=1)
    model.fit(matrix, show_progress=False)
    print(f"fitted in {time.time() - started:.0f} s", flush=True)
    first = list(users)[:1000]

    async def answer(scope, receive, send):
        if scope["type"] != "http":
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        status = 200
        if scope["path"] == "/users":
            limit = int(dict(p.split("=") for p in scope["query_string"].decode().split("&")
                             if "=" in p).get("limit", 30))
            said = first[:limit]
        else:
            asked = json.loads(body)
            user = users.get(asked["user"])
            if user is None:
                status, said = 404, {"error": "not known"}
            else:
                items, scores = model.recommend(user, matrix[user], N=asked.get("k", 10))
                said = {"recommendations": [
                    {"item": products[i]["product"], "title": products[i]["name"],
                     "score": float(s)} for i, s in zip(items, scores)]}
        data = json.dumps(said).encode()
        headers = [(b"content-type", b"application/json"),
                   (b"content-length", str(len(data)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    return answer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("folder")
    making.add_argument("--items", type=int, default=100_000)
    making.add_argument("--users", type=int, default=100_000)
    making.add_argument("--orders", type=int, default=20, help="of a customer, in the mean")
    serving = commands.add_parser("serve")
    serving.add_argument("folder")
    serving.add_argument("--port", type=int, default=8090)
    args = parser.parse_args()
    if args.command == "make":
        make(args.folder, args.items, args.users, args.orders)
        return
    import uvicorn

    uvicorn.run(app(args.folder), port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
