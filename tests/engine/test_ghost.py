"""Every kind of layer: the ghosts' inner products are those of the gradients."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from isonomy.engine import trace
from isonomy.engine.lean import lean
from tests.engine.compare import ghosts, same


def losses_of(z, tasks=3):
    """Losses with heads of their own that read all of a feature."""
    return [nn.Linear(z[0].numel(), 2)(torch.tanh(z).flatten(1)).square().mean() for _ in range(tasks)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(3,), (2, 2), (1, 2, 2)])
def test_linear(lead, bias):
    layer = nn.Linear(9, 7, bias=bias)
    x = torch.randn(*lead, 9)
    assert ghosts(same(losses_of(layer(x)), layer.parameters())) == 1
    # As many samples as inputs: the gradient itself is smaller.
    x = torch.randn(9, *lead, 9)
    assert ghosts(same(losses_of(layer(x)), layer.parameters())) == 0


def test_linear_without_batch():
    layer = nn.Linear(9, 7)
    z = layer(torch.randn(9))
    assert ghosts(same([z.square().sum(), z.sum(), z[0]], layer.parameters())) == 1


def test_transposed_activations():
    layer = nn.Linear(20, 7)
    assert ghosts(same(losses_of(layer(torch.randn(2, 20, 3).transpose(1, 2))), layer.parameters())) == 1


@pytest.mark.parametrize(
    "product",
    [
        lambda w, x: x @ w,
        lambda w, x: torch.addmm(torch.ones(8), x, w),
        lambda w, x: torch.addmm(torch.ones(8), x, w, alpha=2.0, beta=3.0),
        lambda w, x: torch.einsum("bi,io->bo", x, w),
        lambda w, x: torch.bmm(x[None], w[None])[0],
        lambda w, x: torch.matmul(x[:, None], w)[:, 0],
        lambda w, x: functional.linear(x, w.T),
        lambda w, x: functional.linear(x, w.t()),
        lambda w, x: x @ w @ w.t() @ w,
        lambda w, x: (w.t() @ x.t()).t(),
        lambda w, x: x @ (w * w),
        lambda w, x: x @ w + w[:3],
        lambda w, x: x @ (w @ w.t()) @ w,
    ],
)
def test_products_with_a_parameter(product):
    w = nn.Parameter(torch.randn(12, 8))
    same(losses_of(product(w, torch.randn(3, 12))), [w])


@pytest.mark.parametrize(
    ("product", "count"),
    [
        (lambda w, x: x @ w, 1),
        (lambda w, x: (w.t() @ x.t()).t(), 1),
        (lambda w, x: x @ w + 2 * x @ w, 1),
        (lambda w, x: x @ w + (w.t() @ x.t()).t(), 1),
        (lambda w, x: x @ w @ w.t() @ w, 0),  # X and D change places
        (lambda w, x: x @ (w * w), 0),
        (lambda w, x: torch.addmm(torch.ones(30), x, w, alpha=2.0), 0),
    ],
)
def test_ghosts_only_where_a_rule_holds(product, count):
    w = nn.Parameter(torch.randn(40, 30))
    assert ghosts(same(losses_of(product(w, torch.randn(3, 40))), [w])) == count


@pytest.mark.parametrize(
    "product", [lambda w, x: functional.linear(x.to_sparse(), w.t()), lambda w, x: (w.t() @ x.t().to_sparse()).t()]
)
def test_sparse_inputs_have_no_ghost(product):
    w = nn.Parameter(torch.randn(40, 30))
    assert ghosts(same(losses_of(product(w, torch.randn(3, 40).relu())), [w])) == 0


CONVOLUTIONS = [
    (nn.Conv1d(12, 8, 3), (2, 12, 6), 1),
    (nn.Conv1d(12, 8, 3, stride=2, padding=1, bias=False), (1, 12, 6), 1),
    (nn.Conv2d(8, 8, 3), (2, 8, 4, 5), 1),
    (nn.Conv2d(8, 8, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), (1, 8, 3, 3), 1),
    (nn.Conv2d(8, 8, 3, padding="same", dilation=2), (1, 8, 3, 3), 1),
    (nn.Conv2d(8, 8, 2, padding="same"), (1, 8, 3, 3), 1),
    (nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), (1, 8, 4, 4), 1),
    (nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), (1, 8, 4, 4), 1),
    (nn.Conv2d(24, 8, 1), (1, 24, 2, 2), 1),
    (nn.Conv2d(8, 8, 3), (2, 8, 12, 12), 0),
    (nn.Conv2d(6, 4, 3, groups=2), (1, 6, 4, 4), 0),
    (nn.Conv2d(6, 6, 3, groups=6), (1, 6, 4, 4), 0),
    (nn.Conv3d(3, 8, 3, stride=(1, 2, 1), padding=(0, 1, 1), dilation=(1, 1, 2)), (1, 3, 4, 4, 5), 1),
    (nn.ConvTranspose1d(5, 4, 3), (1, 5, 4), 0),
    (nn.ConvTranspose2d(5, 4, 3, stride=2, output_padding=1), (1, 5, 3, 3), 0),
]


@pytest.mark.parametrize(("layer", "shape", "count"), CONVOLUTIONS)
def test_convolutions(layer, shape, count):
    layer = layer.double()
    assert ghosts(same(losses_of(layer(torch.randn(shape))), layer.parameters())) == count
    if len(shape) == 4:
        same(losses_of(layer(torch.randn(shape).to(memory_format=torch.channels_last))), layer.parameters())
    z = layer(torch.randn(shape[1:]))  # without a batch
    same([z.square().sum(), z.sum()], layer.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.LayerNorm([4, 5, 5])]
)
def test_norms(norm, training):
    trunk = nn.Sequential(nn.Conv2d(3, 4, 2), norm, nn.ReLU(), nn.Conv2d(4, 8, 3)).double().train(training)
    same(losses_of(trunk(torch.randn(2, 3, 6, 6))), trunk.parameters())


def test_rms_norm_and_dropout():
    trunk = nn.Sequential(nn.Linear(16, 16), nn.RMSNorm(16), nn.Dropout(0.3), nn.Linear(16, 5))
    assert ghosts(same(losses_of(trunk(torch.randn(3, 16))), trunk.parameters())) == 2


@pytest.mark.parametrize("options", [{}, {"padding_idx": 3}, {"scale_grad_by_freq": True}, {"max_norm": 1.0}])
def test_embeddings(options):
    table = nn.Embedding(50, 4, **options)
    words = torch.tensor([[3, 7, 7], [1, 49, 3]])
    count = ghosts(same(losses_of(table(words)), table.parameters()))
    assert count == ("scale_grad_by_freq" not in options)
    same([table(torch.tensor(7)).sum(), table(torch.tensor(7)).square().sum()], table.parameters())


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_embedding_bags(mode):
    bag = nn.EmbeddingBag(50, 4, mode=mode, padding_idx=3)
    same(losses_of(bag(torch.tensor([[3, 7, 7], [1, 49, 3]]))), bag.parameters())


def test_tied_embedding():
    table, middle = nn.Embedding(30, 16), nn.Linear(16, 16)
    words = torch.randint(30, (1, 3))
    z = middle(table(words)) @ table.weight.t()
    assert ghosts(same(losses_of(z), [*table.parameters(), *middle.parameters()])) == 1
    assert ghosts(same(losses_of(table(words) + table(words + 0).tanh()), table.parameters())) == 1


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention(need_weights):
    attention = nn.MultiheadAttention(16, 2, batch_first=True, kdim=12, vdim=16)
    x, y = torch.randn(1, 3, 16), torch.randn(1, 4, 12)
    z = attention(x, y, torch.randn(1, 4, 16), need_weights=need_weights)[0]
    assert ghosts(same(losses_of(z), attention.parameters())) > 0


@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer(norm_first):
    trunk = nn.Sequential(
        *(nn.TransformerEncoderLayer(16, 2, 40, batch_first=True, norm_first=norm_first) for _ in range(2))
    )
    found = same(losses_of(trunk(torch.randn(1, 3, 16))), trunk.parameters())
    assert ghosts(found) == 8
    assert len(found) > 4
    assert ghosts(same(losses_of(trunk(torch.randn(8, 8, 16))), trunk.parameters())) == 0


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent(kind):
    trunk = kind(12, 10, num_layers=2, bidirectional=True, batch_first=True)
    same(losses_of(trunk(torch.randn(1, 3, 12))[0]), trunk.parameters())
    cell = nn.LSTMCell(24, 20)
    h = c = torch.zeros(1, 20)
    for _ in range(3):
        h, c = cell(torch.randn(1, 24), (h, c))
    assert ghosts(same(losses_of(h), cell.parameters())) == 2


@pytest.mark.parametrize("wrap", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized(wrap):
    trunk = nn.Sequential(wrap(nn.Linear(12, 10)), nn.ReLU(), nn.Linear(10, 9))
    assert ghosts(same(losses_of(trunk(torch.randn(2, 12))), trunk.parameters())) == 1


def test_weight_and_its_parametrization():
    class Symmetric(nn.Module):
        def forward(self, w):
            return w + w.T

    layer = nn.Linear(10, 10)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    x = torch.randn(2, 10)
    same(losses_of(layer(x) + x @ layer.parametrizations.weight.original), layer.parameters())


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return x @ w

    @staticmethod
    def backward(ctx, D):
        x, w = ctx.saved_tensors
        return D @ w.T, 3 * x.T @ D  # a straight-through gradient that no rule could guess


def test_functions_of_the_users_own():
    w = nn.Parameter(torch.randn(12, 10))
    x = torch.randn(2, 12)
    assert ghosts(same(losses_of(Scaled.apply(x, w)), [w])) == 0
    assert ghosts(same(losses_of(Scaled.apply(x, w) + x @ w), [w])) == 0


@pytest.mark.parametrize("reads", [1, 2])
def test_checkpointed(reads):
    """What checkpointing has not kept is not asked for outside the backward pass."""
    count = 0

    def block(x):
        nonlocal count
        count += 1
        return torch.tanh(inner(x))

    first, inner, last = nn.Linear(12, 10), nn.Linear(10, 10), nn.Linear(10, 9)
    z = torch.tanh(first(torch.randn(2, 12)))
    for _ in range(reads):
        z = checkpoint(block, z, use_reentrant=False)
    found = same(losses_of(last(z)), [p for layer in (first, inner, last) for p in layer.parameters()])
    assert ghosts(found) == 2


def test_complex_parameters():
    w = nn.Parameter(torch.randn(12, 10, dtype=torch.complex128))
    z = torch.randn(2, 12, dtype=torch.complex128) @ w
    assert ghosts(same(losses_of(torch.view_as_real(z)), [w])) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    trunk = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32)).float()
    heads = [nn.Linear(32, 2).float() for _ in range(3)]
    x = torch.randn(6, 64, dtype=torch.float32)
    with torch.autocast("cpu", dtype=dtype):
        z = trunk(x)
        losses = [head(z).float().square().mean() for head in heads]
        # The balancer may be called inside: its own products are exact there, too.
        found = same(losses, trunk.parameters(), tolerance=3 * torch.finfo(dtype).eps)
    assert ghosts(found) == 2


def test_float32_with_features_far_from_zero():
    """Samples that are nearly alike cancel in XᵀD; their squares would lose half of the digits."""
    trunk = nn.Linear(64, 48).float()
    x = 100 + torch.randn(16, 64, dtype=torch.float32)
    z = functional.batch_norm(trunk(x), None, None, training=True)
    heads = [nn.Linear(48, 2).float() for _ in range(3)]
    assert ghosts(same([head(z).square().mean() for head in heads], [trunk.weight], tolerance=1e-5)) == 1


@pytest.mark.parametrize("scale", [1e-22, 1e-10, 1e15, 1e25])
def test_float32_of_any_scale(scale):
    trunk = nn.Linear(20, 10).float()
    z = trunk(torch.randn(3, 20, dtype=torch.float32))
    losses = [scale * z.square().mean(), z.sum(), 1 / scale * z.mean()]
    assert ghosts(same(losses, trunk.parameters(), tolerance=1e-5)) == 1


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nothing_finite_is_made_of_what_is_not(bad):
    trunk = nn.Linear(20, 10)
    x = torch.randn(3, 20)
    z = trunk(x)
    losses = [bad * z.square().mean(), z.sum()]
    result = lean(losses, [torch.ones(())] * 2, trace(losses, list(trunk.parameters())))
    assert result.gramian.diagonal().isfinite().tolist() == [False, True]
    z = trunk(torch.where(x == x[0, 0], bad, x))
    losses = [z.square().mean(), z.sum()]
    result = lean(losses, [torch.ones(())] * 2, trace(losses, list(trunk.parameters())))
    assert not result.gramian.diagonal().isfinite().any()
