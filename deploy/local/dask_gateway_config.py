"""A whole gateway on this machine's loopback: server, proxy, and clusters that are processes.

`deploy/local/run_local.sh` starts it. Options are those of
`deploy/gateway/config/options.py`, within limits that a workstation has.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent

c = get_config()  # noqa: F821 - given to files of configuration

port = int(os.environ["TILEWRIGHT_GATEWAY_PORT"])
c.DaskGateway.address = f"127.0.0.1:{port + 1}"  # the server; clients ask the proxy
c.Proxy.address = f"127.0.0.1:{port}"
c.Proxy.tcp_address = f"127.0.0.1:{port + 2}"  # clients to schedulers, gateway://

c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.UnsafeLocalBackend.clusters_directory = os.environ["TILEWRIGHT_GATEWAY_FOLDER"]
# Clusters end with the server, in seconds: nothing is lost that has been recorded.
c.UnsafeLocalBackend.stop_clusters_on_shutdown = True
c.UnsafeLocalBackend.sigint_timeout = 5

c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
# Without one, any password would do.
c.SimpleAuthenticator.password = os.environ["TILEWRIGHT_GATEWAY_PASSWORD"]

c.TilewrightLimits.max_workers = 8
c.TilewrightLimits.max_cores = os.cpu_count() or 1
# As the chart does; load_subconfig would not show it the limits, and be silent without the file.
options = HERE.parent / "gateway" / "config" / "options.py"
exec(compile(options.read_text(encoding="utf-8"), str(options), "exec"))

# With this Python, whatever PATH says.
c.ClusterConfig.scheduler_cmd = [sys.executable, "-m", "dask", "scheduler"]
c.ClusterConfig.worker_cmd = [sys.executable, "-m", "dask", "worker"]
c.ClusterConfig.environment = {"DASK_CONFIG": str(HERE.parent / "dask" / "config.yaml")}
