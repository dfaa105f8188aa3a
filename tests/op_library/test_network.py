import json

import pytest

from latlas_ops import Network, OpSpec
from latlas_ops.errors import InvalidInputError
from latlas_ops.network import NETWORK_INPUT

FIRST = OpSpec.of("conv", (3, 8, 8), out_channels=4, kernel=3, stride=2)
SECOND = OpSpec.of("depthwise", (4, 4, 4), kernel=3)


def test_a_chain_wires_each_op_to_the_one_before() -> None:
    network = Network.chain([FIRST, SECOND])
    assert network.wiring == ((NETWORK_INPUT,), (0,))
    assert network.input_shape == (3, 8, 8)


def test_an_op_with_several_inputs_reads_the_one_before_it_in_all_of_them() -> None:
    network = Network.chain([OpSpec.of("add", *[(4, 4, 4)] * 3), SECOND])
    assert network.wiring == ((NETWORK_INPUT,) * 3, (0,))


def test_one_input_of_two_shapes_is_refused() -> None:
    concat = OpSpec.of("concat", (4, 4, 4), (2, 4, 4))
    with pytest.raises(InvalidInputError, match=r"expects \(2, 4, 4\), the input gives"):
        Network.chain([concat])


def test_json_leads_back_to_the_network() -> None:
    network = Network.chain([FIRST, SECOND])
    again = Network.from_json(network.to_json())
    assert again == network
    assert again.key == network.key


def test_the_key_tells_networks_apart_by_ops_and_order() -> None:
    same = OpSpec.of("depthwise", (4, 4, 4), kernel=3)
    other = OpSpec.of("depthwise", (4, 4, 4), kernel=5)
    keys = {
        Network.chain(ops).key
        for ops in ([SECOND], [SECOND, same], [SECOND, other], [other, SECOND])
    }
    assert len(keys) == 4
    assert all(key.startswith("net:") for key in keys)


@pytest.mark.parametrize(
    ("ops", "wiring", "message"),
    [
        ((), (), "a network needs at least one op"),
        ((FIRST,), (), "1 ops but 0 rows of wiring"),
        ((FIRST,), ((),), "no op of the network reads its input"),
        ((FIRST, SECOND), ((-1,), (1,)), "op 1 (depthwise) reads from 1, which is not before it"),
        ((FIRST, SECOND), ((-1,), (-2,)), "op 1 (depthwise) reads from -2"),
        ((FIRST,), ((-1, -1),), "op 0 (conv) takes 1 inputs, not 2"),
        ((FIRST, FIRST), ((-1,), (0,)), "op 1 (conv) expects (3, 8, 8), op 0 gives (4, 4, 4)"),
        (
            (FIRST, SECOND),
            ((-1,), (-1,)),
            "op 1 (depthwise) expects (4, 4, 4), the input gives (3, 8, 8)",
        ),
        ((SECOND, SECOND), ((-1,), (-1,)), "nobody reads the output of op 0 (depthwise)"),
    ],
)
def test_ops_that_do_not_fit_together_are_refused(
    ops: tuple[OpSpec, ...], wiring: tuple[tuple[int, ...], ...], message: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        Network(ops, wiring)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        "{" * 100_000,
        json.dumps({"ops": [FIRST.key]}),
        json.dumps({"ops": [5], "wiring": [[-1]]}),
        json.dumps({"ops": [FIRST.key], "wiring": [[-0.5]]}),
        json.dumps({"ops": [FIRST.key], "wiring": ["-1"]}),
    ],
)
def test_a_text_that_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Network.from_json(text)
