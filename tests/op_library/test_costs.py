import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from latlas_ops import SPACE_NAMES, ArchBatch, Network, OpSpec, get_space
from latlas_ops.costs import network_cost, op_cost, space_costs
from latlas_ops.graph import INPUT_TENSOR
from latlas_ops.lowering import lower
from latlas_ops.writers.torch_writer import torch_module

HSWISH, RELU = "hswish", "relu"

MOBILENET_V3_LARGE = (  # Howard et al. (ICCV 2019), table 1, without its first block
    # kernel, expanded, out, squeeze and excitation, activation, stride
    (3, 64, 24, False, RELU, 2),
    (3, 72, 24, False, RELU, 1),
    (5, 72, 40, True, RELU, 2),
    (5, 120, 40, True, RELU, 1),
    (5, 120, 40, True, RELU, 1),
    (3, 240, 80, False, HSWISH, 2),
    (3, 200, 80, False, HSWISH, 1),
    (3, 184, 80, False, HSWISH, 1),
    (3, 184, 80, False, HSWISH, 1),
    (3, 480, 112, True, HSWISH, 1),
    (3, 672, 112, True, HSWISH, 1),
    (5, 672, 160, True, HSWISH, 2),
    (5, 960, 160, True, HSWISH, 1),
    (5, 960, 160, True, HSWISH, 1),
)
SQUEEZED = {72: 24, 120: 32, 480: 120, 672: 168, 960: 240}


def mobilenet_v3_large() -> Network:
    ops = [OpSpec.of("stem", (3, 224, 224), out_channels=16)]
    for kernel, expanded, out, squeeze_excite, activation, stride in MOBILENET_V3_LARGE:
        shape = ops[-1].outputs[0]
        ops.append(
            OpSpec.of(
                "mbconv",
                shape,
                out_channels=out,
                expanded_channels=expanded,
                kernel=kernel,
                stride=stride,
                activation=activation,
                se_channels=SQUEEZED[expanded] if squeeze_excite else 0,
                skip=stride == 1 and shape[0] == out,
            )
        )
    ops.append(
        OpSpec.of(
            "head", ops[-1].outputs[0], expanded_channels=960, feature_channels=1280, classes=1000
        )
    )
    return Network.chain(ops)


def flops_by_torch(network: Network) -> int:
    """Multiplications and additions of convolutions and linear layers, counted while it runs."""
    module = torch_module(network).to("meta")
    with FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, *network.input_shape, device="meta"))
    return int(counter.get_total_flops())


def test_macs_of_every_kind_are_half_the_flops_that_torch_counts(example_op: OpSpec) -> None:
    network = Network.chain([example_op])
    assert 2 * op_cost(example_op).macs == flops_by_torch(network)


@pytest.mark.parametrize("name", SPACE_NAMES)
def test_macs_of_whole_networks_are_half_the_flops_that_torch_counts(name: str) -> None:
    space = get_space(name)
    for arch in space.archs(space.sample(3, np.random.default_rng(0))):
        network = space.network(arch)
        assert 2 * network_cost(network).macs == flops_by_torch(network)


def test_mobilenet_v3_large_has_its_published_parameters_and_macs() -> None:
    cost = network_cost(mobilenet_v3_large())
    # A batch norm has two parameters per channel; folded, it leaves one, the convolution's bias.
    normalised = 3 * 16 + sum(2 * row[1] + row[2] for row in MOBILENET_V3_LARGE) + 960
    assert cost.parameters + normalised == 5_483_032  # torchvision's mobilenet_v3_large
    assert cost.macs == pytest.approx(217e6, abs=0.5e6)  # torchvision; the paper's 219M agrees
    assert cost.weight_bytes == 4 * cost.parameters


def test_once_for_all_spans_the_macs_that_its_paper_plots() -> None:
    space = get_space("ofa-mobilenetv3")
    genes = space.extremes().genes.copy()
    genes[:, 0] = 3  # at 224
    smallest, largest = space_costs(ArchBatch(space, genes)).macs
    assert 100e6 < smallest < 150e6
    assert 500e6 < largest < 600e6


def test_a_convolution_by_hand() -> None:
    cost = op_cost(OpSpec.of("conv", (8, 4, 6), out_channels=16, kernel=3, stride=2, groups=2))
    assert cost.macs == 16 * 2 * 3 * (8 // 2) * 9
    assert cost.parameters == 16 * 4 * 9 + 16
    assert cost.weight_bytes == 4 * cost.parameters
    assert cost.activation_bytes == 4 * (8 * 4 * 6 + 16 * 2 * 3)


def test_an_activation_needs_no_memory_of_its_own() -> None:
    plain = OpSpec.of("conv", (8, 4, 4), out_channels=16, kernel=3)
    active = OpSpec.of("conv", (8, 4, 4), out_channels=16, kernel=3, activation="relu")
    assert op_cost(active).activation_bytes == op_cost(plain).activation_bytes


def test_a_skip_keeps_the_input_of_a_block_alive_to_its_end() -> None:
    plain, skipping = (
        OpSpec.of("mbconv", (8, 4, 4), out_channels=8, expanded_channels=48, kernel=3, skip=skip)
        for skip in (False, True)
    )
    inside = 48 * 4 * 4  # elements before and after the depthwise convolution
    assert op_cost(plain).activation_bytes == 4 * 2 * inside
    assert op_cost(skipping).activation_bytes == 4 * (2 * inside + 8 * 4 * 4)


def test_squeeze_and_excitation_keeps_the_features_alive_beside_the_gate() -> None:
    op = OpSpec.of(
        "mbconv",
        (64, 1, 1),
        out_channels=8,
        expanded_channels=64,
        expand=False,
        kernel=1,
        se_channels=512,
    )
    assert op_cost(op).activation_bytes == 4 * (64 + 512 + 64)


def test_every_input_of_an_op_is_a_tensor_of_its_own() -> None:
    narrow, wide = (8, 4, 4), (16, 4, 4)
    joined = op_cost(OpSpec.of("concat", narrow, wide))
    assert (joined.macs, joined.parameters) == (0, 0)
    assert joined.activation_bytes == 4 * 2 * (8 + 16) * 16
    added = op_cost(OpSpec.of("conv_add", narrow, wide, out_channels=16, kernel=3))
    assert added.macs == 16 * 8 * 9 * 16
    assert added.activation_bytes == 4 * (8 + 16 + 16) * 16
    # The sum is written over one of its two inputs.
    assert op_cost(OpSpec.of("add", wide, wide)).activation_bytes == 4 * 2 * 16 * 16


@pytest.mark.parametrize(
    ("dtype", "weight_bytes", "activation_bytes"),
    [("float32", 4 * 10, 4 * 6), ("float16", 2 * 10, 2 * 6), ("int8", 8 + 4 * 2, 6)],
)
def test_bytes_follow_the_dtype(dtype: str, weight_bytes: int, activation_bytes: int) -> None:
    cost = op_cost(OpSpec.of("linear", (4,), out_features=2, dtype=dtype))
    assert (cost.weight_bytes, cost.activation_bytes) == (weight_bytes, activation_bytes)


def test_the_peak_of_a_network_counts_every_tensor_from_its_writer_to_its_last_reader() -> None:
    space = get_space("digits")
    for arch in space.archs(space.sample(5, np.random.default_rng(1))):
        network = space.network(arch)
        graph = lower(network)
        elements = {INPUT_TENSOR: int(np.prod(graph.input_shape))}
        born, dies = {INPUT_TENSOR: 0}, {INPUT_TENSOR: 0}
        for step, node in enumerate(graph.nodes):
            elements[node.output] = int(np.prod(node.shape))
            born[node.output] = dies[node.output] = step
            dies.update(dict.fromkeys(node.inputs, step))
        peak = 0
        for step, node in enumerate(graph.nodes):
            alive = sum(elements[t] for t in elements if born[t] <= step <= dies[t])
            in_place = node.primitive in {"relu", "hswish", "hsigmoid", "add", "mul", "flatten"}
            if in_place and any(
                dies[t] == step and elements[t] == elements[node.output] for t in node.inputs
            ):
                alive -= elements[node.output]
            peak = max(peak, alive)
        assert network_cost(network).activation_bytes == 4 * peak


@pytest.mark.parametrize("name", SPACE_NAMES)
def test_costs_of_a_batch_equal_those_of_its_networks(name: str) -> None:
    space = get_space(name)
    batch = space.sample(20, np.random.default_rng(2))
    costs = space_costs(batch)
    for row, arch in enumerate(space.archs(batch)):
        cost = network_cost(space.network(arch))
        assert costs.macs[row] == cost.macs
        assert costs.parameters[row] == cost.parameters
        assert costs.weight_bytes[row] == cost.weight_bytes


def test_an_empty_batch_costs_an_empty_array() -> None:
    assert space_costs(get_space("digits").batch([])).macs.shape == (0,)
