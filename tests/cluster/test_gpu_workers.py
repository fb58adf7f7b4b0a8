"""One worker for each GPU: what each of them sees; no GPU is needed to ask."""

import os

import pytest

from engine.cluster import ClusterSpec, open_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


def test_each_worker_sees_a_gpu_of_its_own() -> None:
    with open_cluster(ClusterSpec("local", 2, 3, gpus=("0", "GPU-5f"))) as client:
        found = client.run(lambda: os.environ.get("CUDA_VISIBLE_DEVICES"))
        assert sorted(found.values()) == ["0", "GPU-5f"]
        assert sorted(client.nthreads().values()) == [3, 3]
