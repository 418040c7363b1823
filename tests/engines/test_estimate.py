from __future__ import annotations

import pytest

from cipherlearn.circuit import Builder, Circuit
from cipherlearn.engines import get_engine
from cipherlearn.engines.estimate import estimate_cost, machine_speed, readable_size


def small_circuit(observed: bool = False) -> Circuit:
    builder = Builder()
    x = builder.input("x", (1, 3), 0, 7)
    value = x.assume(0, 3) if observed else x
    return builder.finish([value.lookup([v * v for v in range(8)], 0).sum(axis=1)])


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1536, "1.54 kB"),
        (2.5e6, "2.5 MB"),
        (3e9, "3 GB"),
        (5e12, "5e+03 GB"),
    ],
)
def test_sizes_are_readable(size: float, text: str) -> None:
    assert readable_size(size) == text


def test_the_report_holds_the_figures_of_the_program() -> None:
    circuit = small_circuit()
    program = get_engine("clear").compile(circuit)
    report = estimate_cost(circuit, program)
    assert report.lookups_by_width == {3: 3}
    assert report.complexity == program.complexity
    assert report.estimated_seconds >= program.complexity / machine_speed()
    assert report.peak_memory > report.size_of_evaluation_keys
    assert not program.has_keys


def test_inputs_take_time_where_nothing_is_looked_up() -> None:
    seconds = []
    for bits in (200, 400):
        builder = Builder()
        x = builder.input("x", (1, bits), 0, 1)
        circuit = builder.finish([x.sum(axis=1)])
        program = get_engine("concrete").compile(circuit)
        seconds.append(estimate_cost(circuit, program).estimated_seconds)
    assert 1e-3 < seconds[0] < seconds[1] < 1.0


def test_the_report_says_which_ranges_were_only_observed() -> None:
    for observed, word in ((False, "proved"), (True, "observed")):
        circuit = small_circuit(observed)
        report = estimate_cost(circuit, get_engine("clear").compile(circuit))
        assert report.ranges.startswith(word)
        assert word in str(report)


def test_the_table_names_look_ups_by_width() -> None:
    circuit = small_circuit()
    text = str(estimate_cost(circuit, get_engine("clear").compile(circuit)))
    assert "3 of 3 bits" in text
    assert "exact rounding" not in text


def test_the_speed_of_a_machine_is_measured_once() -> None:
    assert machine_speed() == machine_speed() > 0
