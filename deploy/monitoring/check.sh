#!/usr/bin/env bash
# Checks the rules with promtool, then has the real Prometheus scrape a running service and asks it what it saw.
#
#   deploy/monitoring/check.sh [http://127.0.0.1:8000]        needs prometheus and promtool (Debian package prometheus)
set -euo pipefail
cd "$(dirname "$0")"
url=${1:-http://127.0.0.1:8000}
target=${url#http://}
target=${target%/}
address=127.0.0.1:${PROMETHEUS_PORT:-19090}

promtool check config prometheus.yml
promtool test rules alerts_test.yml

work=$(mktemp -d)
pid=
finish() {
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT

cp alerts.yml "$work/"
sed -e "s/\"sknet:8000\"/\"$target\"/" -e 's/_interval: 15s/_interval: 1s/' prometheus.yml > "$work/prometheus.yml"
prometheus --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --web.listen-address="$address" \
    > "$work/log" 2>&1 &
pid=$!

ask() { promtool query instant "http://$address" "$1"; }

for _ in $(seq 60); do
    # With the rates, so that two scrapes are in; a Prometheus that ended (a port in use) would be waited for in vain.
    if ! kill -0 "$pid" 2>/dev/null; then
        cat "$work/log" >&2
        exit 1
    fi
    if [ -n "$(ask 'sknet:requests:rate5m' 2>/dev/null)" ]; then
        break
    fi
    sleep 0.5
done

failed=0
for query in 'up{job="sknet"} == 1' 'sum by (route, status) (sknet_requests_total)' 'sknet_ready_workers' 'sknet_model_info' \
    'sknet:requests:rate5m'; do
    answer=$(ask "$query")
    printf '%s\n' "# $query" "${answer:-(nothing)}"
    [ -n "$answer" ] || failed=1
done
exit "$failed"
