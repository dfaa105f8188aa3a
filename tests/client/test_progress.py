"""A bar on a terminal, sparse plain lines elsewhere."""

import io

import pytest

from latlas.progress import Progress, format_seconds


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def raise_after(bar: Progress, done: int) -> None:
    bar.update(done)
    raise RuntimeError


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_log_gets_a_line_for_every_tenth_of_the_work(clock):
    stream = io.StringIO()
    with Progress("measuring", total=1000, stream=stream, clock_s=clock) as bar:
        for done in range(1, 1001):
            bar.update(done)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "measuring 0/1000 (0%)"
    assert lines[-1] == "measuring 1000/1000 (100%), took 0 s"
    assert len(lines) == 11


def test_slow_work_gets_a_line_every_ten_seconds(clock):
    stream = io.StringIO()
    with Progress("measuring", total=10_000, stream=stream, clock_s=clock) as bar:
        for done in range(1, 41):
            clock.now_s += 1
            bar.update(done)
    assert len(stream.getvalue().splitlines()) == 5


def test_rate_and_remaining_time_leave_out_what_was_done_before(clock):
    stream = io.StringIO()
    with Progress(
        "measuring", total=300, done=100, unit="visits", stream=stream, clock_s=clock
    ) as bar:
        clock.now_s += 10
        bar.update(150, note="1 failed")
    assert stream.getvalue().splitlines() == [
        "measuring 100/300 (33%)",
        "measuring 150/300 (50%), 5 visits/s, 30 s left, 1 failed",
    ]


def test_a_terminal_redraws_one_line_at_most_ten_times_a_second(clock):
    stream = Terminal()
    with Progress("measuring", total=100, stream=stream, clock_s=clock) as bar:
        for done in range(1, 101):
            clock.now_s += 0.01
            bar.update(done)
    drawn = stream.getvalue().split("\r\x1b[K")
    assert 10 <= len(drawn) <= 13
    assert drawn[-1].startswith("measuring [########################] 100/100 (100%)")
    assert drawn[-1].endswith("\n")
    assert stream.getvalue().count("\n") == 1


def test_a_line_never_wraps(clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    with Progress("a very long description", total=1, stream=stream, clock_s=clock):
        pass
    assert stream.getvalue() == "\r\x1b[Ka very long descrip\n"


def test_an_error_inside_leaves_the_cursor_on_a_fresh_line(clock):
    stream = Terminal()
    bar = Progress("measuring", total=10, stream=stream, clock_s=clock)
    with pytest.raises(RuntimeError), bar:
        raise_after(bar, 3)
    assert "3/10" in stream.getvalue()
    assert stream.getvalue().endswith("\n")


def test_a_total_may_turn_out_to_be_another_and_even_none(clock):
    stream = io.StringIO()
    with Progress("measuring", total=10, stream=stream, clock_s=clock) as bar:
        bar.update(0, total=0)
    assert stream.getvalue().splitlines()[-1] == "measuring 0/0 (100%), took 0 s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (125, "2 min 05 s"), (3600 + 240, "1 h 04 min")],
)
def test_durations_are_written_for_people(seconds, text):
    assert format_seconds(seconds) == text
