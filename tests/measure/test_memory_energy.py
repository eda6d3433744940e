import subprocess
import sys

import pytest

from triptych.measure.energy import Rapl, energy_of, find_rapl
from triptych.measure.memory import floor_bytes, peak_bytes


def process(proc, pid, parent, peak_kb):
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "status").write_text(f"Name:\tx\nVmPeak:\t 999 kB\nVmHWM:\t {peak_kb} kB\n")
    (folder / "stat").write_text(f"{pid} (a) name (x) S {parent} 1 1\n")


def zone(root, number, name, microjoules, largest=1000):
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{largest}\n")
    return folder


def test_the_peak_of_a_process_counts_those_it_started(tmp_path):
    process(tmp_path, 10, 1, 100)
    process(tmp_path, 11, 10, 20)
    process(tmp_path, 12, 11, 3)
    process(tmp_path, 13, 1, 5000)
    assert peak_bytes(10, tmp_path) == 123 * 1024
    assert peak_bytes(99, tmp_path) is None
    assert peak_bytes(10, tmp_path / "none") is None


def test_the_peak_stays_after_the_memory_is_given_back():
    code = "import sys; x = bytearray(50_000_000); x[::4096] = b'1' * len(x[::4096]); del x; print(); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert peak_bytes(child.pid) > 50_000_000
        child.stdin.close()


def test_a_bare_process_with_numpy_takes_tens_of_megabytes():
    assert 5_000_000 < floor_bytes() < 200_000_000


def test_energy_by_hand(tmp_path):
    package = zone(tmp_path, "0", "package-0", 100)
    memory = zone(tmp_path, "0:2", "dram", 10)
    zone(tmp_path, "0:0", "core", 55)
    zone(tmp_path, "1", "psys", 77)
    meter = find_rapl(tmp_path)
    assert meter.zones == {package: "package-0", memory: "dram"}
    before = meter.read()
    (package / "energy_uj").write_text("400")
    (memory / "energy_uj").write_text("30")
    assert meter.joules(before, meter.read()) == pytest.approx(320e-6)
    assert meter.source.startswith("measured: RAPL dram + package-0")


def test_a_counter_that_wrapped_is_continued(tmp_path):
    package = zone(tmp_path, "0", "package-0", 900, largest=1000)
    assert Rapl({package: "package-0"}).joules({package: 900}, {package: 50}) == pytest.approx(150e-6)


def test_energy_of_a_prediction_is_the_share_of_about_a_second(tmp_path):
    package = zone(tmp_path, "0", "package-0", 0, largest=10**12)

    def predict(number):
        (package / "energy_uj").write_text(str(3 * number))

    assert energy_of(find_rapl(tmp_path), predict, 0.01)[0] == pytest.approx(3e-6)


def test_without_counters_there_is_a_reason(tmp_path):
    assert energy_of(find_rapl(tmp_path), pytest.fail, 0.01) == (
        None,
        f"unavailable: no RAPL counters under {tmp_path}",
    )


def test_a_zone_without_a_counter_is_passed_over(tmp_path):
    (zone(tmp_path, "0", "package-0", 1) / "energy_uj").unlink()
    assert "no RAPL package counter" in find_rapl(tmp_path)
    second = zone(tmp_path, "1", "package-1", 1)
    assert find_rapl(tmp_path).zones == {second: "package-1"}


def test_a_counter_for_the_administrator_only_is_said_to_be_so(tmp_path, monkeypatch):
    package = zone(tmp_path, "0", "package-0", 1)

    def read_text(path):
        if path.name == "energy_uj":
            raise PermissionError
        return "package-0\n"

    monkeypatch.setattr(type(package), "read_text", read_text)
    assert "only be read by the administrator" in find_rapl(tmp_path)


@pytest.mark.parametrize("broken", ["energy_uj", "max_energy_range_uj"])
def test_a_counter_that_goes_away_leaves_no_number(tmp_path, broken):
    package = zone(tmp_path, "0", "package-0", 500)

    def predict(number):
        (package / "energy_uj").write_text("100")
        (package / broken).unlink()

    joules, source = energy_of(find_rapl(tmp_path), predict, 1.0)
    assert joules is None
    assert source.startswith("unavailable: a RAPL counter failed")
