"""Tables on other runtimes and spaces: which cases there are, and what there is without one."""

import pytest

from latlas_ops import get_space


@pytest.fixture(scope="module")
def elsewhere(bench_module):
    return bench_module("elsewhere")


def test_every_case_names_a_space_and_bars_that_rise(elsewhere):
    for case in elsewhere.CASES:
        assert get_space(case.space).name == case.space
        assert 0 < case.most_mape < case.most_error <= case.most_error_of_fast


def test_a_case_that_is_not_there_and_a_folder_without_one_give_nothing_to_judge(
    elsewhere, tmp_path, capsys
):
    assert elsewhere.main([str(tmp_path), "--cases", "moon"]) == 2
    assert "no case 'moon'; there are torch, litert" in capsys.readouterr().err
    assert elsewhere.main([str(tmp_path), "--figures-only"]) == 2
    assert "holds no finished session" in capsys.readouterr().err
