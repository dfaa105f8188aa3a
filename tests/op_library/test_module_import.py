"""Torch modules as ops: what they compute, what their key says, what cannot be taken."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latlas_ops import ImportedModule, Network, OpSpec, import_module, module_import
from latlas_ops.costs import op_cost
from latlas_ops.errors import InvalidInputError, UnsupportedModuleError, from_wire, wire_code
from latlas_ops.lowering import lower
from latlas_ops.weights import check_weights
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.opgraph import read_opgraph, write_opgraph
from latlas_ops.writers.tflite_writer import write_tflite
from latlas_ops.writers.torch_writer import torch_module

TOLERANCE = 2e-6
BATCH = 2


class SqueezeExcite(nn.Module):
    """With linear layers on a vector that becomes an image again."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Linear(channels, reduced), nn.Linear(reduced, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(torch.relu(self.reduce(x.mean((2, 3)))))
        return x * torch.sigmoid(gate).view(x.shape[0], -1, 1, 1)


class InvertedResidual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.SiLU(inplace=True)),
            nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False),
            *(nn.BatchNorm2d(24), nn.Hardswish(inplace=True), SqueezeExcite(24, 6)),
            *(nn.Conv2d(24, 8, 1, bias=False), nn.BatchNorm2d(8)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class BasicBlock(nn.Module):
    """ResNet's, with sums and activations in place."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            conv = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        out += self.shortcut(x)
        return self.relu(out)


class Vision(nn.Module):
    """Patches as tokens, attention written in one of four ways, mean of the tokens."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.patches, self.norm = nn.Conv2d(3, 32, 4, 4), nn.LayerNorm(32, eps=1e-6)
        self.qkv, self.out, self.head = nn.Linear(32, 96), nn.Linear(32, 32), nn.Linear(32, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        n, length, width = x.shape
        qkv = self.qkv(self.norm(x))
        if self.way == "chunks":
            q, k, v = (part.view(n, length, 4, 8).transpose(1, 2) for part in qkv.chunk(3, -1))
        else:
            q, k, v = qkv.reshape(n, length, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        if self.way == "products":
            y = ((q @ k.transpose(-2, -1)) * 8**-0.5).softmax(-1) @ v
        else:
            y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.way == "causal")
        x = x + self.out(y.transpose(1, 2).reshape(n, length, width))
        return self.head(x[:, 0] if self.way == "causal" else x.mean(1))


class Shuffling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        mixed = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return torch.cat([mixed, x], 1)


class Shared(nn.Module):
    """One convolution before and one after the norm that could be folded into the first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.norm(y) + self.conv(y)


class Cross(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True, kdim=16, vdim=16)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return x + self.attention(x, memory, memory, need_weights=False)[0]


class Attending(nn.Module):
    """One attention used twice; its weights are computed and not read."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(2):
            x = x + self.attention(x, x, x)[0]
        return x


def small_cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU6(), nn.MaxPool2d(3, 2, 1)),
        *(nn.BatchNorm2d(8), nn.Conv2d(8, 12, 3, padding="same", dilation=2), nn.Tanh()),
        *(nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout()),
        *(nn.Linear(12, 16, bias=False), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 4)),
        nn.Softmax(-1),
    )


def encoder_layer(**options: bool) -> nn.Module:
    return nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu", **options)


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]] = {
    "small-cnn": (small_cnn, ((3, 33, 33),)),
    "basic-block": (lambda: BasicBlock(8, 8), ((8, 9, 7),)),
    "basic-block-stride": (lambda: BasicBlock(8, 12, 2), ((8, 9, 7),)),
    "inverted-residual": (InvertedResidual, ((8, 9, 9),)),
    "encoder-post-norm": (encoder_layer, ((10, 32),)),
    "encoder-pre-norm": (lambda: encoder_layer(norm_first=True), ((10, 32),)),
    **{
        f"vision-{way}": (lambda way=way: Vision(way), ((3, 16, 16),))
        for way in ("chunks", "unbound", "products", "causal")
    },
    "attention-twice": (Attending, ((5, 8),)),
    "shuffling": (Shuffling, ((6, 5, 4),)),
    "shared": (Shared, ((4, 6, 5),)),
}


def prepared(make: Callable[[], nn.Module]) -> nn.Module:
    """A module in training mode, none of whose norms does nothing."""
    torch.manual_seed(0)
    module = make()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, 0, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 2)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias)
    return module.train()


def run_torch(found: ImportedModule, images: Tensor) -> NDArray[np.float32]:
    with torch.inference_mode():
        return torch_module(found.network, found.weights)(images).numpy()


def run_onnx(found: ImportedModule, images: Tensor) -> NDArray[np.float32]:
    model = write_onnx(found.network, found.weights, batch=BATCH).model_bytes
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    output: NDArray[np.float32] = session.run(["output"], {"input": images.numpy()})[0]
    return output


def run_tflite(found: ImportedModule, images: Tensor) -> NDArray[np.float32]:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    model = write_tflite(found.network, found.weights, batch=BATCH).model_bytes
    interpreter = litert.Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    given = images.numpy()
    given = np.ascontiguousarray(np.moveaxis(given, 1, -1)) if given.ndim == 4 else given
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given)
    interpreter.invoke()
    output: NDArray[np.float32] = interpreter.get_tensor(
        interpreter.get_output_details()[0]["index"]
    )
    return np.moveaxis(output, -1, 1) if output.ndim == 4 else output


@pytest.mark.parametrize("run", [run_torch, run_onnx, run_tflite])
@pytest.mark.parametrize("case", CASES)
def test_a_module_gives_the_same_in_every_runtime(
    case: str, run: Callable[[ImportedModule, Tensor], NDArray[np.float32]]
) -> None:
    make, shapes = CASES[case]
    module = prepared(make)
    found = import_module(module, *((1, *shape) for shape in shapes))
    assert module.training
    images = torch.randn(BATCH, *shapes[0], generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = module.eval()(images).numpy()
    output = run(found, images)
    assert output.shape == expected.shape == (BATCH, *found.op.outputs[0])
    assert np.abs(output - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_a_module_may_read_several_tensors() -> None:
    module = prepared(Cross).eval()
    found = import_module(module, (1, 5, 32), (1, 5, 16))
    assert found.op.inputs == ((5, 32), (5, 16))
    kinds = [step[0] for step in json.loads(str(found.op.attribute("graph")))]
    assert kinds == ["linear", "linear", "linear", "attention", "linear", "add"]
    # The first 16 features of the input are the memory.
    network = Network((OpSpec.of("linear", (5, 32), out_features=16), found.op), ((-1,), (-1, 0)))
    first = {"weight": np.eye(16, 32, dtype=np.float32), "bias": np.zeros(16, np.float32)}
    weights = {f"0.linear.{name}": array for name, array in first.items()}
    both = torch_module(network, {**weights, **found.weights_at(1)})
    x = torch.randn(1, 5, 32)
    with torch.inference_mode():
        assert torch.allclose(both(x), module(x, x[..., :16]), atol=1e-5)


def test_weights_fit_the_network_and_travel_in_an_op_graph() -> None:
    found = import_module(prepared(small_cnn), (1, 3, 33, 33))
    check_weights(lower(found.network), found.weights)
    network, weights = read_opgraph(write_opgraph(found.network, found.weights).model_bytes)
    assert network == found.network
    assert all(np.array_equal(weights[name], found.weights[name]) for name in found.weights)


def test_batch_norms_cost_nothing_and_weights_are_counted_once() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    cost = op_cost(import_module(module, (1, 3, 10, 10)).op)
    assert cost.parameters == 3 * 8 * 9 + 8
    assert cost.macs == 3 * 8 * 9 * 64


# -- keys and the cache ------------------------------------------------------------------------


def test_equal_computations_have_one_key_whoever_wrote_them() -> None:
    written = {import_module(Vision(way), (1, 3, 16, 16)).op.key for way in ("chunks", "products")}
    assert len(written) == 1
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    normed = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    keys = [import_module(one, (1, 3, 8, 8)).op.key for one in (plain, normed)]
    assert keys[0] == keys[1]
    assert import_module(nn.Sequential(nn.Conv2d(3, 8, 3)), (1, 3, 8, 8)).op.key != keys[0]


def test_the_key_does_not_depend_on_the_batch_and_survives_the_wire() -> None:
    module = InvertedResidual()
    op = import_module(module, (1, 8, 9, 9)).op
    assert import_module(module, torch.zeros(4, 8, 9, 9)).op == op
    assert OpSpec.from_key(op.key) == op
    assert Network.from_json(Network.chain([op]).to_json()).ops == (op,)
    assert len(str(op)) < 80


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The modules that were really exported; the cache is empty at first."""
    monkeypatch.setattr(module_import, "_cache", type(module_import._cache)())
    seen: list[object] = []
    export = torch.export.export

    def counted(module: nn.Module, *args: object, **options: object) -> object:
        seen.append(module)
        return export(module, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.export, "export", counted)
    return seen


def test_a_module_of_equal_content_is_exported_once(exports: list[object]) -> None:
    first, second = prepared(lambda: BasicBlock(4, 4)), BasicBlock(4, 4)
    found = [import_module(one, (1, 4, 6, 6)) for one in (first, second, second.eval())]
    assert len(exports) == 1
    assert found[0].op == found[1].op
    assert not np.array_equal(
        found[0].weights["0.conv0.weight"], found[1].weights["0.conv0.weight"]
    )
    import_module(BasicBlock(4, 8, 2), (1, 4, 6, 6))
    import_module(first, (1, 4, 8, 8))
    assert len(exports) == 3


def test_a_module_whose_attributes_do_not_tell_is_not_remembered(exports: list[object]) -> None:
    class Scaled(nn.Module):
        def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.function = function

        def forward(self, x: Tensor) -> Tensor:
            return self.function(x)

    ops = [
        import_module(Scaled(function), (1, 4, 4, 4)).op
        for function in (lambda x: x + x, lambda x: x * x)
    ]
    assert len(exports) == 2
    assert ops[0] != ops[1]


# -- what cannot be taken ----------------------------------------------------------------------


class Nested(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(4, 4, 1), nn.ModuleList([nn.ReLU(), inner])

    def forward(self, x: Tensor) -> Tensor:
        for block in (self.stem, *self.blocks):
            x = block(x)
        return x


def test_an_error_names_the_module_the_operator_the_runtimes_and_the_way_out() -> None:
    with pytest.raises(UnsupportedModuleError) as caught:
        import_module(Nested(nn.LeakyReLU()), (1, 4, 8, 8))
    message = str(caught.value)
    assert message.startswith("Nested.blocks.1 (LeakyReLU): aten::leaky_relu: there is no prim")
    for part in ("onnxruntime", "TFLite", "torch", "torch.onnx.export", "latlas measure"):
        assert part in message
    assert "\n" not in message
    assert type(from_wire(wire_code(caught.value), message)) is UnsupportedModuleError


@pytest.mark.parametrize(
    ("inner", "reason"),
    [
        (nn.Conv2d(4, 4, (1, 3)), r"a kernel of \[1, 3\], only of equal sides"),
        (nn.Conv2d(4, 4, 3, (1, 2)), r"a stride of \[1, 2\]"),
        (nn.ConvTranspose2d(4, 4, 2), "conv_transpose2d"),
        (nn.AvgPool2d(3, padding=1), "counts the padding"),
        (nn.MaxPool2d(3, 2, ceil_mode=True), "rounds up"),
        (nn.MaxPool2d(2, dilation=2), "dilated"),
        (nn.GELU("tanh"), "approximation by tanh"),
        (nn.Hardtanh(-1, 1), "limits to -1 and 1,"),
        (nn.BatchNorm2d(4, track_running_stats=False), "keeps no statistics"),
        (nn.GroupNorm(2, 4), "group_norm"),
        (nn.Upsample(scale_factor=2), "upsample"),
        (nn.AdaptiveAvgPool2d(3), "no pooling of 8x8 to 3x3"),
        (nn.Softmax(1), "but that over the last axis"),
        (nn.Linear(8, 8), "no linear layer for a tensor"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_has_no_primitive_is_refused_with_the_reason(inner: nn.Module, reason: str) -> None:
    with pytest.raises(UnsupportedModuleError, match=reason) as caught:
        import_module(Nested(inner), (1, 4, 8, 8))
    assert f"Nested.blocks.1 ({type(inner).__name__})" in str(caught.value)


def test_arithmetic_with_numbers_and_weights_is_refused() -> None:
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(4, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x) * self.gain

    class Added(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 3

    with pytest.raises(UnsupportedModuleError, match="computes with the weight gain"):
        import_module(Halved(), (1, 4, 8, 8))
    with pytest.raises(UnsupportedModuleError, match="no primitive with the number 3"):
        import_module(Added(), (1, 4, 8, 8))


def test_attention_to_attention_of_one_module_is_refused_rather_than_done_once() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            y = self.attention(x, x, x, need_weights=False)[0]
            return self.attention(y, y, y, need_weights=False)[0]

    with pytest.raises(UnsupportedModuleError, match=r"Nested\.attention \(MultiheadAttention\)"):
        import_module(Nested(), (1, 5, 8))


def test_masked_attention_is_refused() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.register_buffer("mask", torch.zeros(5, 5, dtype=torch.bool))

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x, x, attn_mask=self.mask, need_weights=False)[0]

    with pytest.raises(UnsupportedModuleError, match=r"Masked\.attention \(MultiheadAttention\)"):
        import_module(Masked(), (1, 5, 8))


def test_what_is_changed_in_place_is_read_as_changed_in_every_shape_or_refused() -> None:
    class Flattened(nn.Module):
        """Only the flattened tensor is read after it was changed."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 2, 3), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.conv(x).flatten(1).relu_())

    class Both(Flattened):
        def forward(self, x: Tensor) -> Tensor:
            image = self.conv(x)
            row = image.flatten(1)
            image.relu_()
            return self.linear(row) * image.mean((2, 3)).repeat(1, 2)

    torch.manual_seed(0)
    module = Flattened().eval()
    found = import_module(module, (1, 3, 4, 4))
    kinds = [step[0] for step in json.loads(str(found.op.attribute("graph")))]
    assert kinds == ["conv", "flatten", "relu", "linear"]
    with pytest.raises(UnsupportedModuleError, match="in place what is read in another shape"):
        import_module(Both(), (1, 3, 4, 4))


def test_what_depends_on_values_cannot_be_traced() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x) if x.sum() > 0 else x

    with pytest.raises(UnsupportedModuleError, match=r"Branching: torch\.export cannot trace it"):
        import_module(Branching(), (1, 4, 8, 8))


def test_modules_that_are_no_op_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return torch.relu(x), torch.sigmoid(x)

    with pytest.raises(InvalidInputError, match="Identity gives its input as it is"):
        import_module(nn.Identity(), (1, 4))
    with pytest.raises(InvalidInputError, match="Two gives 2 outputs"):
        import_module(Two(), (1, 4))
    with pytest.raises(InvalidInputError, match=r"Linear does not run on inputs of shape \[\(1, 5"):
        import_module(nn.Linear(4, 4), (1, 5))
    with pytest.raises(InvalidInputError, match="an example of each input"):
        import_module(nn.Linear(4, 4))
