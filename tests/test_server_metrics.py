"""The text of a metrics endpoint, of GPUs too, and rates between two of them."""

from __future__ import annotations

import math

import pytest

from sml_kernel.serving.metrics import parse, rates

#: In the words of Triton: two versions of a model, on two GPUs.
TEXT = """\
# HELP nv_inference_request_success Number of successful inference requests
# TYPE nv_inference_request_success counter
nv_inference_request_success{gpu_uuid="GPU-a",model="net",version="1"} 30
nv_inference_request_success{gpu_uuid="GPU-b",model="net",version="2"} 10
nv_inference_request_failure{model="net",reason="BACKEND",version="1"} 2
nv_inference_request_failure{model="net",reason="OTHER",version="1"} 1
nv_inference_count{gpu_uuid="GPU-a",model="net",version="1"} 60
nv_inference_exec_count{gpu_uuid="GPU-a",model="net",version="1"} 20
nv_inference_request_duration_us{gpu_uuid="GPU-a",model="net",version="1"} 8000000
nv_inference_queue_duration_us{gpu_uuid="GPU-a",model="net",version="1"} 2000000
nv_inference_compute_input_duration_us{gpu_uuid="GPU-a",model="net",version="1"} 500000
nv_inference_compute_infer_duration_us{gpu_uuid="GPU-a",model="net",version="1"} 3000000
nv_inference_compute_output_duration_us{gpu_uuid="GPU-a",model="net",version="1"} 500000
nv_inference_pending_request_count{model="net",version="1"} 3
nv_inference_pending_request_count{model="net",version="2"} 4
nv_gpu_utilization{gpu_uuid="GPU-a"} 0.93
nv_gpu_memory_total_bytes{gpu_uuid="GPU-a"} 42505076736
nv_gpu_memory_used_bytes{gpu_uuid="GPU-a"} 1.5e+09
nv_gpu_utilization{gpu_uuid="GPU-b"} 0
nv_cpu_utilization 0.5
nv_pinned_memory_pool_used_bytes 0
"""


def test_versions_reasons_and_gpus_of_a_model_are_summed() -> None:
    found = parse(TEXT, "s", 1.0)
    net = found.models["net"]
    assert (net.requests, net.failed, net.inferences, net.executions) == (40, 3, 60, 20)
    assert (net.total_s, net.queue_s, net.compute_s) == pytest.approx((8, 2, 4))
    assert found.pending == {"net": 7}
    assert found.gpus["GPU-a"].use == 0.93
    assert found.gpus["GPU-a"].memory_used_bytes == 1.5e9
    assert found.gpus["GPU-b"].use == 0
    assert math.isnan(found.gpus["GPU-b"].memory_total_bytes)  # it was not said
    assert found.host.use == 0.5


def test_rates_are_of_what_happened_between_and_none_of_a_model_that_began_anew() -> None:
    before = parse(TEXT, "s", 1.0)
    (row,) = rates(parse("", "s", 0.0), parse(TEXT, "s", 2.0))
    assert (row["throughput_s"], row["failed_s"]) == pytest.approx((20, 1.5))
    assert (row["queue_us"], row["compute_us"], row["server_us"]) == pytest.approx((5e4, 1e5, 2e5))
    assert (row["mean_batch"], row["pending"]) == (3, 7)
    (idle,) = rates(before, parse(TEXT, "s", 3.0))
    assert idle["throughput_s"] == 0
    assert math.isnan(idle["queue_us"])
    assert math.isnan(idle["mean_batch"])
    anew = parse('nv_inference_request_success{model="net",version="1"} 5', "s", 3.0)
    assert rates(before, anew) == []
