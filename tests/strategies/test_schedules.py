"""The tables against the formulas of the papers, and against a simulation by queues."""

import itertools
import struct

import pytest

from jaxdna.strategies.schedule_view import as_text, draw
from jaxdna.strategies.schedules import (
    BACKWARD,
    FORWARD,
    SCHEDULES,
    UPDATE,
    bubble,
    ideal_bubble,
    most_in_flight,
    most_versions,
    staleness,
    timetable,
)

SYNCHRONOUS = ("sequential", "gpipe", "1f1b")
SIZES = list(itertools.product((1, 2, 3, 4, 6), (1, 2, 3, 4, 8)))


def queues(stages, microbatches, batches):
    """Stages that know only their own queues: backward first, at most S-s inputs kept.

    Returns (stage, kind, micro-batch) -> (tick, updates that the stage has made before).
    """
    total = batches * microbatches
    ahead = [list(range(total)), *([] for _ in range(stages - 1))]
    back = [[] for _ in range(stages)]
    kept = [0] * stages
    updates = [0] * stages
    seen = {}
    for tick in range(10 * (total + stages)):
        sent = []
        for s in range(stages):
            if back[s]:
                m = back[s].pop(0)
                kept[s] -= 1
                seen[s, BACKWARD, m] = tick, updates[s]
                updates[s] += (m + 1) % microbatches == 0
                if s:
                    sent.append((back[s - 1], m))
            elif ahead[s] and kept[s] < stages - s:
                m = ahead[s].pop(0)
                kept[s] += 1
                seen[s, FORWARD, m] = tick, updates[s]
                sent.append((back[s] if s == stages - 1 else ahead[s + 1], m))
        for queue, m in sent:
            queue.append(m)
    return seen


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_pass_happens_once_after_what_it_needs_and_a_stage_does_one_thing_at_a_time(name):
    for stages, microbatches in SIZES:
        if name == "2bw" and microbatches < stages - 1:
            continue
        events = timetable(name, stages, microbatches, 3)
        when = {(e.stage, e.kind, e.microbatch): e.time for e in events}
        passes = [(e.stage, e.time) for e in events if e.kind != UPDATE]
        assert len(set(passes)) == len(passes) == 2 * stages * 3 * microbatches
        for (s, kind, m), time in when.items():
            if kind == FORWARD and s:
                assert when[s - 1, FORWARD, m] < time
            if kind == BACKWARD:
                assert when[s, FORWARD, m] < time
                assert s == stages - 1 or when[s + 1, BACKWARD, m] < time
        for s in range(stages):
            made = [e.version for e in events if e.stage == s and e.kind == UPDATE]
            assert made == [1, 2, 3]
            backward = [e.microbatch for e in events if e.stage == s and e.kind == BACKWARD]
            assert backward == sorted(backward)  # gradients are added in one order


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_synchronous_schedules_use_the_newest_weights_only(name):
    for stages, microbatches in SIZES:
        events = timetable(name, stages, microbatches, 3)
        assert all(set(seen) == {0} for seen in staleness(events, stages, microbatches))
        assert most_versions(events, stages) == [1] * stages
        for event in events:
            batch = event.microbatch // microbatches
            assert event.version == batch + (event.kind == UPDATE)


def test_the_bubble_is_that_of_the_papers():
    for stages, microbatches in SIZES:
        for batches in (1, 3):
            for name in ("gpipe", "1f1b"):
                counted = bubble(timetable(name, stages, microbatches, batches), stages)
                assert counted == pytest.approx(ideal_bubble(stages, microbatches), abs=1e-12)
            alone = bubble(timetable("sequential", stages, microbatches, batches), stages)
            assert alone == pytest.approx(1 - 1 / stages, abs=1e-12)
        # Never emptied: what is idle is one filling and one emptying, 2(S-1) slots in all.
        events = timetable("pipedream", stages, microbatches, 50)
        slots = 2 * 50 * microbatches + 2 * (stages - 1)
        assert bubble(events, stages) == pytest.approx(2 * (stages - 1) / slots, abs=1e-12)


def test_1f1b_keeps_fewer_inputs_than_gpipe():
    assert most_in_flight(timetable("gpipe", 4, 8, 2), 4) == [8, 8, 8, 8]
    assert most_in_flight(timetable("1f1b", 4, 8, 2), 4) == [4, 3, 2, 1]
    assert most_in_flight(timetable("sequential", 4, 8, 2), 4) == [1, 1, 1, 1]


def test_pipedream_and_spectrain_use_the_versions_that_queues_find():
    for stages, microbatches in SIZES:
        seen = queues(stages, microbatches, 5)
        for event in timetable("pipedream", stages, microbatches, 5):
            if event.kind != UPDATE:
                key = (event.stage, event.kind, event.microbatch)
                forward = (event.stage, FORWARD, event.microbatch)
                assert event.time == seen[key][0]
                assert event.version == seen[forward][1]  # backward as forward: stashed
        for event in timetable("spectrain", stages, microbatches, 5):
            if event.kind != UPDATE:
                assert event.version == seen[event.stage, event.kind, event.microbatch][1]


def test_pipedream_lags_by_the_stages_behind_and_2bw_by_one_update():
    for stages in (2, 3, 4, 6):
        events = timetable("pipedream", stages, 1, 30)
        late = [e for e in events if e.kind == FORWARD and e.microbatch >= stages]
        for event in late:
            assert event.microbatch - event.version == stages - 1 - event.stage
        assert most_versions(events, stages) == [stages - s for s in range(stages)]
        for microbatches in (stages - 1, stages, 2 * stages):
            events = timetable("2bw", stages, microbatches, 10)
            for event in events:
                if event.kind != UPDATE:
                    batch = event.microbatch // microbatches
                    assert event.version == max(0, batch - 1)
            assert max(most_versions(events, stages)) == 2


def test_2bw_refuses_fewer_micro_batches_than_it_needs():
    with pytest.raises(ValueError, match="needs 3"):
        timetable("2bw", 4, 2, 10)


def test_spectrain_predicts_as_far_as_the_paper_says():
    """SpecTrain (arXiv 1809.02839): floor(k/2) + N-k-1 forward, floor(k/2) backward."""
    for stages in (1, 2, 3, 4, 6):
        for event in timetable("spectrain", stages, 1, 40):
            k = event.stage
            if event.kind != UPDATE and stages <= event.microbatch < 40 - stages:
                rest = stages - k - 1 if event.kind == FORWARD else 0
                assert event.ahead == k // 2 + rest


def test_text_and_picture_of_a_schedule(tmp_path):
    events = timetable("1f1b", 2, 3, 1)
    assert as_text(events, 2, 3) == (
        "stage 0  F0 F1 .. B0 F2 B1 .. B2\n"
        "stage 1  .. F0 B0 F1 B1 F2 B2 ..\n"
    )  # fmt: skip
    draw(tmp_path / "a.png", {"one": events}, 2, 3)
    draw(tmp_path / "b.png", {"one": events, "two": timetable("gpipe", 2, 3, 1)}, 2, 3)
    heights = []
    for name in ("a.png", "b.png"):
        data = (tmp_path / name).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        heights.append(struct.unpack(">II", data[16:24])[1])
    assert heights[1] == pytest.approx(2 * heights[0], abs=1)
