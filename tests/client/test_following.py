"""Waiting for a campaign on the command line."""

import time

from latlas.cli.following import told_when_slow


def test_slow_work_is_told_on_stderr(capsys):
    with told_when_slow("writing", after_s=0.01):
        time.sleep(0.2)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "latlas: writing\n")


def test_quick_work_is_not_told_even_later(capsys):
    with told_when_slow("writing", after_s=0.1):
        pass
    time.sleep(0.2)
    assert capsys.readouterr().err == ""
