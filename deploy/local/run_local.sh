#!/usr/bin/env bash
# A whole Dask-Gateway on this machine's loopback, until Ctrl-C; clusters are processes of yours.
#
#   deploy/local/run_local.sh [PORT]       8000 where none is given; PORT+1 and PORT+2 are taken too
#
# TILEWRIGHT_GATEWAY_PASSWORD: the password, else one is made up; PYTHON: else .venv/bin/python.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$here/../../.venv/bin/python}
export TILEWRIGHT_GATEWAY_PORT=${1:-8000}
url=http://127.0.0.1:$TILEWRIGHT_GATEWAY_PORT

if ! "$python" -c 'import dask_gateway_server, sqlalchemy' 2>/dev/null; then
  echo "$python has no Dask-Gateway server: $python -m pip install dask-gateway 'dask-gateway-server[local]'" >&2
  exit 2
fi
if "$python" - "$TILEWRIGHT_GATEWAY_PORT" <<'PYTHON'
import socket
import sys

first = int(sys.argv[1])
sys.exit(all(socket.socket().connect_ex(("127.0.0.1", first + i)) for i in range(3)))
PYTHON
then
  echo "a port of $TILEWRIGHT_GATEWAY_PORT and the two after it is taken: give another" >&2
  exit 2
fi

if [ -z "${TILEWRIGHT_GATEWAY_PASSWORD:-}" ]; then
  TILEWRIGHT_GATEWAY_PASSWORD=$("$python" -c 'import secrets; print(secrets.token_hex(8))')
fi
export TILEWRIGHT_GATEWAY_PASSWORD
TILEWRIGHT_GATEWAY_FOLDER=$(mktemp -d)
export TILEWRIGHT_GATEWAY_FOLDER

server=
stop() {
  trap '' INT TERM
  if [ -n "$server" ]; then
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  rm -rf "$TILEWRIGHT_GATEWAY_FOLDER"
}
trap stop EXIT
trap 'exit 0' INT TERM

"$python" -m dask_gateway_server -f "$here/dask_gateway_config.py" &
server=$!

for _ in $(seq 100); do
  if "$python" -c "import urllib.request as r; r.urlopen('$url/api/health', timeout=2)" 2>/dev/null; then
    cat <<READY
gateway ready at $url
  export DASK_GATEWAY__AUTH__TYPE=basic DASK_GATEWAY__AUTH__KWARGS__PASSWORD=$TILEWRIGHT_GATEWAY_PASSWORD
  tilewright run IMAGE OUT --recipe nuclei --cluster gateway --cluster-set address=$url \\
    --cluster-set proxy_address=gateway://127.0.0.1:$((TILEWRIGHT_GATEWAY_PORT + 2)) --cluster-set workers=2
READY
    wait "$server"
    exit 1
  fi
  kill -0 "$server" 2>/dev/null || exit 1
  sleep 0.2
done
echo "the gateway does not answer at $url after 20 s" >&2
exit 1
