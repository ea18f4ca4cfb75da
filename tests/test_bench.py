"""What `make bench` makes of figures; the measuring itself is its own business."""

from __future__ import annotations

from benchmarks.bench import compare, markdown, without_repetition
from benchmarks.rows import LIMIT, OURS, SUBJECTS, Row, rows

FASTER = Row("assign", "assign", "tal", "Peer", 1 / 25)
ABSOLUTE = Row("start", "start", "help", None, 0.4)
RATE = Row("limit", "network", "speed", LIMIT, 0.75, "convolution", more_is_better=True)


def test_a_row_is_met_by_its_ratio_its_figure_or_its_share() -> None:
    figures = {
        (OURS, "tal"): (10.0, "ms"),
        ("Peer", "tal"): (200.0, "ms"),
        (OURS, "help"): (0.3, "s"),
        (OURS, "speed"): (80.0, "GFLOP/s"),
        (LIMIT, "convolution"): (100.0, "GFLOP/s"),
    }
    results = [compare(row, figures) for row in (FASTER, ABSOLUTE, RATE)]
    assert [(r.ratio, r.met) for r in results if r] == [(0.05, False), (None, True), (0.8, True)]
    table = markdown([r for r in results if r], figures, threads=2, quick=False)
    assert "| assign | tal | 10.0 ms | Peer | 200 ms | 1/20.0 | ≤ 1/25 | **missed** |" in table
    assert "| start | help | 0.300 s |  |  |  | ≤ 0.4 s | met |" in table
    assert "GFLOP/s: convolution 100" in table


def test_without_peers_ours_stand_alone_and_once() -> None:
    figures = {(OURS, "tal"): (10.0, "ms")}
    other = Row("assign", "assign", "tal", "Another", 1 / 12)
    results = without_repetition([r for row in (FASTER, other) if (r := compare(row, figures))])
    assert [(r.ours, r.ratio, r.met) for r in results] == [(10.0, None, None)]
    assert compare(ABSOLUTE, figures) is None


def test_every_row_has_a_subject_and_a_peer_that_is_measured() -> None:
    for row in rows():
        subject = SUBJECTS[row.subject]
        assert row.against in (None, OURS, *subject.beside, *subject.peers)
