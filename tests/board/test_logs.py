"""Lines as the programs print them, from public reports; microseconds become milliseconds."""

from __future__ import annotations

import pytest

from edgekd.board.logs import read_benchmark_model, read_trtexec
from edgekd.core.errors import RunError

UNTIL_2020 = """STARTING!
Min num runs: [50]
count=50 first=79449 curr=81350 min=77385 max=88213 avg=79732 std=1929
Average inference timings in us: Warmup: 83235, Init: 38467, no stats: 79760.9
"""

UNTIL_2023 = """INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
Running benchmark for at least 1 iterations and at least 0.5 seconds
count=2 first=360262 curr=248910 min=248910 max=360262 avg=304586 std=55676
Running benchmark for at least 50 iterations and at least 1 seconds
count=50 first=249042 curr=250889 min=247067 max=254474 avg=249684 std=1442
Inference timings in us: Init: 16242, First inference: 360262, Warmup (avg): 304586, \
Inference (avg): 249684
"""

TODAY = """INFO: Replacing 64 out of 66 node(s) with delegate (TfLiteXNNPackDelegate) node, \
yielding 3 partitions for subgraph 0.
INFO: count=1 first=1357602 curr=1357602
INFO: count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 \
p5=1238753 median=1239807 p95=1247415
INFO: Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, \
Inference (avg): 1.24027e+06
INFO: Peak memory footprint (MB): init=5.5 overall=12.25
"""

TRTEXEC_8 = """[12/02/2021-19:58:58] [I] Average on 10 runs - GPU latency: 101.1 ms
[12/02/2021-19:58:58] [I] Average on 10 runs - GPU latency: 100.9 ms
[12/02/2021-19:58:58] [I] === Performance summary ===
[12/02/2021-19:58:58] [I] Throughput: 9.85818 qps
[12/02/2021-19:58:58] [I] Latency: min = 100.036 ms, max = 104.225 ms, mean = 101.425 ms, \
median = 101.092 ms, percentile(99%) = 104.225 ms
[12/02/2021-19:58:58] [I] GPU Compute Time: min = 99.6099 ms, max = 103.805 ms, mean = 101.003 ms, \
median = 100.67 ms, percentile(99%) = 103.805 ms
[12/02/2021-19:58:58] [W] * GPU compute time is unstable, with coefficient of variance = 3.1%.
&&&& PASSED TensorRT.trtexec [TensorRT v8201] # trtexec
"""

TRTEXEC_10 = """[I] GPU Compute Time: min = 0.94249 ms, max = 1.51343 ms, mean = 0.949318 ms, \
median = 0.948975 ms, percentile(90%) = 0.951172 ms, percentile(95%) = 0.951843 ms, \
percentile(99%) = 0.953735 ms
&&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec
"""


def test_the_first_generation_has_a_mean_and_no_median() -> None:
    timing = read_benchmark_model(UNTIL_2020)
    assert timing.headline == ("mean", 79.732)
    assert (timing.runs, timing.min_ms, timing.max_ms) == (50, 77.385, 88.213)
    assert timing.median_ms is None
    assert timing.first_ms is None
    assert timing.delegate == "builtin"


def test_a_mean_alone_is_enough() -> None:
    timing = read_benchmark_model(UNTIL_2020.splitlines()[-1])
    assert timing.headline == ("mean", pytest.approx(79.7609))
    assert timing.runs is None


def test_the_second_generation_names_the_first_inference_and_the_warm_up_is_not_taken() -> None:
    timing = read_benchmark_model(UNTIL_2023)
    assert timing.headline == ("mean", 249.684)
    assert timing.first_ms == 360.262
    assert timing.delegate == "xnnpack"


def test_today_there_is_a_median_and_large_values_are_scientific() -> None:
    timing = read_benchmark_model(TODAY)
    assert timing.headline == ("median", 1239.807)
    assert timing.mean_ms == 1240.27
    assert timing.percentiles_ms == {"5": 1238.753, "95": 1247.415}
    assert timing.memory_bytes == 12_250_000
    assert timing.delegate == "TfLiteXNNPackDelegate 64/66 nodes, 3 partitions"


def test_one_run_prints_its_time_alone() -> None:
    timing = read_benchmark_model("count=1 curr=3512391\n")
    assert (timing.runs, timing.headline) == (1, ("mean", 3512.391))


def test_what_the_gpu_leaves_to_the_cpu_is_kept() -> None:
    text = TODAY + "ERROR: 12 operations will run on the GPU, and the remaining 3 on the CPU.\n"
    assert read_benchmark_model(text).warnings == (
        "12 operations will run on the GPU, and the remaining 3 on the CPU.",
    )


def test_a_failed_benchmark_is_quoted() -> None:
    with pytest.raises(RunError, match="no inference time: Failed to load model"):
        read_benchmark_model("STARTING!\nFailed to load model\n")


def test_trtexec_is_read_by_its_compute_time_and_not_by_its_latency() -> None:
    timing = read_trtexec(TRTEXEC_8)
    assert timing.headline == ("median", 100.67)
    assert (timing.runs, timing.percentiles_ms) == (20, {"99": 103.805})
    assert timing.warnings == (
        "* GPU compute time is unstable, with coefficient of variance = 3.1%.",
    )


def test_newer_versions_add_percentiles() -> None:
    timing = read_trtexec(TRTEXEC_10)
    assert timing.percentiles_ms == {"90": 0.951172, "95": 0.951843, "99": 0.953735}
    assert timing.warnings == ()


def test_a_failed_trtexec_is_quoted() -> None:
    text = "[E] Error[4]: onnx parse failed\n&&&& FAILED TensorRT.trtexec\n"
    with pytest.raises(RunError, match=r"trtexec: Error\[4\]: onnx parse failed"):
        read_trtexec(text)
