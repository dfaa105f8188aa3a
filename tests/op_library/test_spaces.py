from typing import Any

import pytest

from latlas_ops import SPACE_NAMES, get_space
from latlas_ops.errors import InvalidInputError, NotFoundError
from latlas_ops.spaces.mobile import MobileSpace, Stage, make_divisible


def test_the_course_space_has_the_size_that_its_formula_gives() -> None:
    count = get_space("course").count()
    assert count.flat == 4 * 4**5 * 3**5 * 3**20 == 3_470_494_144_278_528
    assert count.distinct_per_resolution == 4**5 * (3**2 + 3**3 + 3**4) ** 5


def test_once_for_all_has_its_published_size() -> None:
    count = get_space("ofa-mobilenetv3").count()
    assert count.distinct_per_resolution == (9**2 + 9**3 + 9**4) ** 5  # the paper's 2e19
    assert count.distinct == 4 * count.distinct_per_resolution
    assert count.flat == 4 * 3**5 * 9**20


def test_once_for_all_consists_of_368_distinct_ops() -> None:
    assert len(get_space("ofa-mobilenetv3").slot_entries.ops) == 368


def test_the_digits_space_takes_grey_images_of_ten_classes() -> None:
    space = get_space("digits")
    for arch in space.archs(space.extremes()):
        network = space.network(arch)
        assert network.input_shape[0] == 1
        assert network.ops[-1].outputs == ((10,),)


def test_a_space_is_the_same_object_every_time() -> None:
    assert all(get_space(name) is get_space(name) for name in SPACE_NAMES)
    assert all(get_space(name).name == name for name in SPACE_NAMES)


def test_an_unknown_space_is_refused_with_those_that_exist() -> None:
    with pytest.raises(NotFoundError, match="no search space 'ofa'; there are digits, ofa-mob"):
        get_space("ofa")


def test_layers_of_once_for_all_have_the_shapes_of_the_paper() -> None:
    space = get_space("ofa-mobilenetv3")
    assert isinstance(space, MobileSpace)
    values = dict(enumerate(space.archs(space.extremes())[1].genes))
    first = space.layer(1, 0, values)
    assert first is not None
    assert (first.in_channels, first.expanded_channels, first.out_channels) == (24, 144, 40)
    assert (first.kernel, first.stride, first.se_channels, first.skip) == (7, 2, 40, False)
    second = space.layer(1, 1, values)
    assert second is not None
    assert (second.in_channels, second.stride, second.skip) == (40, 1, True)


@pytest.mark.parametrize(
    ("value", "divisible"), [(1, 8), (11, 16), (12, 16), (18, 24), (20, 24), (36, 40), (240, 240)]
)
def test_channels_are_rounded_as_in_mobilenet(value: float, divisible: int) -> None:
    assert make_divisible(value) == divisible


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resolutions": ()}, "resolutions must be rising, got ()"),
        ({"kernels": (5, 3)}, r"kernels must be rising, got (5, 3)"),
        ({"kernels": (3, 4)}, r"kernels must be odd, got (3, 4)"),
        ({"depths": (0, 1)}, r"depths start at 1, got (0, 1)"),
        ({"stages": ()}, "needs at least one stage"),
    ],
)
def test_a_space_with_impossible_choices_is_refused(changes: dict[str, Any], message: str) -> None:
    plan: dict[str, Any] = {
        "name": "mine",
        "version": 1,
        "in_channels": 3,
        "classes": 10,
        "resolutions": (32,),
        "stem_channels": 8,
        "stem_stride": 2,
        "stages": (Stage(16, 1),),
        "depths": (1, 2),
        "kernels": (3, 5),
        "expansions": (2, 3),
        "head_channels": 32,
    }
    with pytest.raises(InvalidInputError) as caught:
        MobileSpace(**(plan | changes))
    assert str(caught.value).startswith("space 'mine'")
    assert message in str(caught.value)
