import hashlib
from typing import Any

import numpy as np
import pytest

from latlas_ops import SPACE_NAMES, ArchBatch, get_space
from latlas_ops.errors import InvalidInputError, NotFoundError
from latlas_ops.space import INACTIVE
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


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("digits", "386b30228041e085ed4e4689727ad16f0667029c6f0058615dcdea083e4b7935"),
        ("ofa-mobilenetv3", "36e5e7f29a44f23f327e642915eb3354cdea565fe0e6e4d045645f3580ed20a7"),
        ("course", "114719f39f2bd3f77ed8c36fd46fe60979aa4a315d88cd2df407947b1cd91f6c"),
    ],
)
def test_the_ops_of_the_first_spaces_keep_their_keys(name: str, digest: str) -> None:
    # Tables that were measured and architectures that were stored refer to them.
    keys = "\n".join(sorted(op.key for op in get_space(name).slot_entries.ops))
    assert hashlib.sha256(keys.encode()).hexdigest() == digest


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("digits", "941f565bc6c368da"),
        ("ofa-mobilenetv3", "9f528e6fe2953af2"),
        ("course", "36d6aecd655dbc93"),
    ],
)
def test_the_genes_and_slots_of_the_first_spaces_stay(name: str, digest: str) -> None:
    space = get_space(name)
    genes = [(one.name, one.choices, one.parent, one.least_parent_choice) for one in space.genes]
    slots = [(slot.name, slot.genes) for slot in space.slots]
    text = repr([*genes, *slots])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


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


def test_a_shared_width_and_depths_of_a_stage_give_as_many_networks_as_are_counted() -> None:
    space = MobileSpace(
        name="shared",
        version=1,
        in_channels=1,
        classes=4,
        resolutions=(16,),
        stem_channels=16,
        stem_stride=2,
        stem_activation="relu6",
        first_channels=8,
        stages=(Stage(16, 1, "relu6"), Stage(48, 2, "relu6", depths=(1,))),
        depths=(1, 2),
        kernels=(3, 5),
        expansions=(2,),
        widths=(0.5, 1.0),
        shared_width=True,
        head_channels=0,
    )
    every = np.stack(np.unravel_index(np.arange(space.count().flat), tuple(space.sizes)), axis=1)
    batch = ArchBatch(space, np.unique(space.canonical(every), axis=0))
    assert len(batch) == space.count().distinct == 2 * (2 + 4) * 2
    rows = space.entry_indices(batch)
    assert len({tuple(row[row != INACTIVE].tolist()) for row in rows}) == len(batch)
    for arch in space.archs(batch):
        wide = space.choice(arch, 1) == 1.0
        channels = [op.outputs[0][0] for op in space.network(arch).ops]
        assert channels[:3] == ([16, 8, 16] if wide else [8, 8, 8])
        assert channels[-2:] == ([48, 4] if wide else [24, 4])


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
        ({"stages": (Stage(16, 1, depths=(2, 1)),)}, "depths must be rising, got (2, 1)"),
        ({"stages": (Stage(16, 1, depths=(0,)),)}, "depths start at 1, got (0,)"),
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
