#!/usr/bin/env bash
# Measures `glta serve` with 800 and 100,000 items, and implicit behind serve_implicit.py, with the
# same load in one run (docs/serving.md). Needs the packages of serve_implicit.py in
# $PYTHON, curl, and release builds of the program glta and the example serve_load.
#
#     benches/peers/serve_load.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
built=${CARGO_TARGET_DIR:-$here/../../target}/release
python=${PYTHON:-python3}
mkdir -p "$1" && cd "$1"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

memory() { awk '/VmRSS/ { printf "%.0f MB", $2 / 1024 }' "/proc/$1/status"; }
answers() { until curl -sf "http://$1/users?limit=1" >/dev/null; do sleep 0.2; done; }
load() { "$built/examples/serve_load" --at "$1" --clients 32 --seconds 10 "${@:2}"; }

for size in "800 2000" "100000 100000"; do
  read -r items users <<<"$size"
  shop=shop-$items
  if [ ! -d "$shop/model" ]; then
    "$python" "$here/serve_implicit.py" make "$shop" --items "$items" --users "$users"
    "$built/glta" fit --interactions "$shop/orders.csv" --items "$shop/products.csv" \
      --out "$shop/model" --quiet
  fi
  rm -f "$shop"/model.journal.sqlite*
  at=127.0.0.1:18700
  "$built/glta" serve --model "$shop/model" --listen $at 2>"$shop/log" &
  service=$!
  answers $at
  echo "== glta serve, $items items: $(memory $service)"
  load $at >/dev/null
  echo "reads alone: $(load $at)"
  echo "5 % writes: $(load $at --writes 5)"
  echo "a filter: $(load $at --filter category=Tea)"
  echo "before the writes: $(memory $service)"
  "$python" - $at <<'PY'
import http.client, json, random, sys
random.seed(3)
service = http.client.HTTPConnection(sys.argv[1])
for _ in range(1000):
    some = [{"user": f"c{random.randrange(40_000)}", "item": f"p{random.randrange(800)}",
             "time": 1_700_000_000 + n} for n in range(100)]
    service.request("POST", "/interactions", json.dumps(some))
    answer = service.getresponse()
    assert answer.status == 200, answer.read()
    answer.read()
PY
  echo "after 100,000 writes: $(memory $service), journal $(du -h "$shop/model.journal.sqlite" | cut -f1)"
  for n in 1 2 3; do
    curl -s -o /dev/null -w "new item $n: %{time_total} s\n" -X PUT "http://$at/items/new$n" \
      -d "{\"title\": \"Aster tea no $n\", \"category\": \"Tea\"}"
  done
  echo "after new items: $(memory $service)"
  kill $service && wait $service
done

at=127.0.0.1:18701
"$python" "$here/serve_implicit.py" serve shop-100000 --port 18701 >implicit.log 2>&1 &
peer=$!
answers $at
echo "== implicit, 100000 items: $(memory $peer)"
load $at >/dev/null
echo "reads alone: $(load $at)"
