"""The telemetry page, with and without GPUs."""

from __future__ import annotations

import json

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.components.formats import format_bytes
from dashboard.components.host_cards import memory_used
from engine import Console
from engine.telemetry import HostReader, Nvml, ProcessReader, Sampler
from tests.engine.telemetry.fakes import HEALTHY, FakeBinding, FakeGpu
from tests.pages.conftest import OpenPage, texts


def give_gpus(console: Console, *gpus: FakeGpu) -> Sampler:
    """Three samples taken by hand of a machine with these GPUs."""
    console.sampler.close()
    nvml = Nvml(FakeBinding(*gpus))
    console.sampler = Sampler(HostReader(console.settings.home), ProcessReader(), nvml)
    for _ in range(3):
        console.sampler.take()
    return console.sampler


def value_of(page: AppTest, label: str) -> str:
    return next(str(metric.value) for metric in page.metric if metric.label == label)


def test_host_and_process_always(console: Console, open_page: OpenPage) -> None:
    console.sampler.take()
    page = open_page("telemetry")
    for label in ("Memory used", "Disk free", "Memory (RSS)"):
        assert value_of(page, label).endswith("B")
    assert value_of(page, "Threads").isdigit()
    assert not page.error


def test_no_gpu_gives_the_reason(console: Console, open_page: OpenPage) -> None:
    give_gpus(console)
    assert "No GPU: The NVIDIA driver is loaded but lists no GPU." in texts(open_page("telemetry"))


def test_each_gpu_has_its_values(console: Console, open_page: OpenPage) -> None:
    give_gpus(console, FakeGpu("GPU-a"), FakeGpu("GPU-b", {**HEALTHY, "nvmlDeviceGetTemperature": 83}))
    page = open_page("telemetry")
    assert "GPU 0 · NVIDIA H200" in texts(page)
    assert "GPU 1 · NVIDIA H200" in texts(page)
    assert "Driver 580.95.05 · supports CUDA 13.0" in texts(page)
    assert [metric.value for metric in page.metric if metric.label == "Temperature"] == ["61 °C", "83 °C"]
    assert [metric.value for metric in page.metric if metric.label == "Utilization"] == ["55 %", "55 %"]
    assert value_of(page, "Power") == "412 W"
    assert value_of(page, "SM clock") == "1,980 MHz"
    power = next(metric for metric in page.metric if metric.label == "Power")
    assert list(power.proto.chart_data) == [412.5] * 3


def test_what_a_gpu_cannot_tell_is_a_dash(console: Console, open_page: OpenPage) -> None:
    import pynvml

    give_gpus(console, FakeGpu(errors={"nvmlDeviceGetFanSpeed": pynvml.NVML_ERROR_NOT_SUPPORTED}))
    page = open_page("telemetry")
    assert next(metric.delta for metric in page.metric if metric.label == "Temperature") == "fan –"


def test_a_gpu_that_fails_says_so(console: Console, open_page: OpenPage) -> None:
    import pynvml

    give_gpus(console, FakeGpu(errors={"nvmlDeviceGetMemoryInfo": pynvml.NVML_ERROR_GPU_IS_LOST}))
    page = open_page("telemetry")
    assert "GPU is lost" in page.error[0].value
    assert value_of(page, "Power") == "–"


def test_sampler_error_is_shown_above_the_last_values(
    console: Console, open_page: OpenPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = give_gpus(console)

    def fail() -> None:
        raise OSError("/proc/stat is gone")

    monkeypatch.setattr(sampler._host, "read", fail)
    sampler.take()
    page = open_page("telemetry")
    assert "/proc/stat is gone" in page.error[0].value
    last = sampler.latest()
    assert last is not None
    assert value_of(page, "Memory used") == format_bytes(memory_used(last))


def test_before_the_first_sample(console: Console, open_page: OpenPage) -> None:
    console.sampler.close()
    console.sampler = Sampler(HostReader(console.settings.home), ProcessReader(), Nvml(FakeBinding()))
    page = open_page("telemetry")
    assert "first sample" in page.info[0].value
    assert not page.metric


def test_history_of_the_chart_in_the_url(console: Console, open_page: OpenPage) -> None:
    give_gpus(console, FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    page = open_page("telemetry", chart="GPU power")
    drawn = json.loads(page.get("plotly_chart")[0].proto.spec)
    assert [trace["name"] for trace in drawn["data"]] == ["GPU 0", "GPU 1"]
    assert drawn["data"][0]["y"] == [412.5] * 3
    assert drawn["layout"]["yaxis"]["title"]["text"] == "GPU power (W)"


def test_no_gpu_charts_without_gpus(console: Console, open_page: OpenPage) -> None:
    give_gpus(console)
    assert open_page("telemetry").segmented_control(key="chart").options == ["CPU", "Memory", "Disk", "Network"]
