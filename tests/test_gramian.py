import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from isonomy import gramian as module
from isonomy.gramian import Gramian, combine, finite, gramian, gramians
from tests.fixtures import E, close, gramian_of, jacobians, random_jacobian, tensor


def rows_of(J, *sizes: int) -> list[list[torch.Tensor]]:
    return [list(row.split(sizes)) for row in tensor(J)]


@given(jacobians())
def test_norms_and_cosines_hold_the_matrix(J):
    G = J @ J.T
    held = Gramian.of(G)
    torch.testing.assert_close(held.norms, J.norm(dim=1), rtol=1e-12, atol=0)
    torch.testing.assert_close(held.matrix / held.norms / held.norms[:, None], held.cosines, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(held.matrix, G, rtol=0, atol=1e-14 * float(G.max()))
    assert (held.cosines.abs() <= 1).all()
    assert torch.equal(held.cosines, held.cosines.T)


def test_known_cosines():
    held = gramian_of(E)
    close(held.norms, tensor([5, 3, 10]).sqrt(), 1e-15)
    close(held.cosines[0], [1, -1 / 15**0.5, -1 / 50**0.5], 1e-15)


def test_a_zero_row_has_cosine_0_with_the_others_and_1_with_itself():
    held = gramian_of([[0, 0], [3, 4]])
    close(held.norms, [0, 5], 0)
    close(held.cosines, torch.eye(2), 0)


def test_a_slightly_negative_diagonal_counts_as_zero():
    assert torch.equal(Gramian.of(tensor([[-1e-30, 0], [0, 1]])).norms, tensor([0, 1]))


@given(jacobians(2), st.integers(0, 1000))
def test_scaling_rows_scales_norms_and_turns_signs(J, seed):
    w = random_jacobian(1, len(J), seed)[0]
    scaled, expected = gramian_of(J).scaled(w), gramian_of(w[:, None] * J)
    torch.testing.assert_close(scaled.norms, expected.norms, rtol=1e-12, atol=0)
    torch.testing.assert_close(scaled.cosines, expected.cosines, rtol=0, atol=1e-12)


def test_a_weight_of_zero_leaves_no_norm():
    scaled = gramian_of(E).scaled(tensor([0, -1, 2]))
    close(scaled.norms, [0, 3**0.5, 2 * 10**0.5], 1e-12)
    close(scaled.cosines[1], [0, 1, 4 / 30**0.5], 1e-12)


def test_subset_picks_rows_and_columns():
    held = gramian_of(E).subset(torch.tensor([2, 0]))
    close(held.matrix, [[10, -1], [-1, 5]], 1e-12)


@given(jacobians(2), st.integers(0, 1000))
def test_norm_and_alignment_of_an_aggregate(J, seed):
    J = J / J.norm(dim=1).max()
    w = random_jacobian(1, len(J), seed)[0].abs() + 0.1
    d = J.T @ w
    held = gramian_of(J)
    assert float(held.combined_norm(w)) == pytest.approx(float(d.norm()), abs=1e-7)
    if d.norm() > 1e-3:
        torch.testing.assert_close(held.alignment(w), (J @ d) / (J.norm(dim=1) * d.norm()), rtol=0, atol=1e-9)


def test_alignment_is_0_without_a_direction():
    close(gramian_of([[1, 0], [-1, 0]]).alignment(tensor([1, 1])), [0, 0], 0)
    close(gramian_of([[0, 0], [3, 4]]).alignment(tensor([1, 2])), [0, 1], 1e-15)


def test_conflicts_are_counted_by_pair():
    assert int(gramian_of(E).conflicts()) == 3
    assert int(gramian_of([[1, 0], [0, 1], [1, -1], [0, 0]]).conflicts()) == 1


def test_gramian_adds_up_over_tensors_and_chunks(monkeypatch):
    J = random_jacobian(3, 11, 0)
    monkeypatch.setattr(module, "_COLUMNS_CPU", 4)
    rows = [[a.view(2, 3), b, c.view(())] for a, b, c in rows_of(J, 6, 4, 1)]
    close(gramian(rows), J @ J.T, 1e-14)


@pytest.mark.parametrize("tasks", [1, 3, 10])
@pytest.mark.parametrize("signs", ["both", "positive"])
def test_float32_rows_of_many_columns_keep_six_digits(tasks, signs):
    J = torch.randn(tasks, 4_000_000, generator=torch.Generator().manual_seed(tasks))
    J[-1] = J[0] + 1e-3 * J[-1]
    J = J if signs == "both" else J.abs()
    exact = sum(part.double() @ part.double().T for part in J.split(1 << 18, dim=1))
    norms = exact.diagonal().sqrt()
    assert float(((gramian([[row] for row in J]) - exact) / norms / norms[:, None]).abs().max()) < 1e-6


@pytest.mark.parametrize("scale", [1e-25, 1e-15, 1e15, 1e25])
def test_norms_of_float32_rows_neither_vanish_nor_overflow(scale):
    J = random_jacobian(3, 50, 0).float()
    J[1] *= scale
    J = J.double()
    held, expected = Gramian.of(gramian([[row.float()] for row in J])), Gramian.of(J @ J.T)
    torch.testing.assert_close(held.norms, expected.norms, rtol=1e-6, atol=0)
    torch.testing.assert_close(held.cosines, expected.cosines, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gramian_is_out_of_reach_of_reduced_precision(dtype):
    J = random_jacobian(3, 5000, 0).to(dtype)
    expected = gramian([[row] for row in J])
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            close(gramian([[row] for row in J]), expected, 1e-6 * float(expected.max()))
    finally:
        torch.set_float32_matmul_precision(before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(gramian([[row] for row in J]), expected, 1e-6 * float(expected.max()))


def test_gramians_of_single_tensors(monkeypatch):
    J = random_jacobian(3, 11, 0)
    monkeypatch.setattr(module, "_COLUMNS_CPU", 4)
    rows = [[a.view(2, 3), b, c.view(()), a[:0]] for a, b, c in rows_of(J, 6, 4, 1)]
    parts = [J[:, :6], J[:, 6:10], J[:, 10:], J[:, :0]]
    close(gramians(rows), torch.stack([part @ part.T for part in parts]), 1e-14)


def test_gramians_of_a_small_tensor_beside_a_large_one():
    J = random_jacobian(3, 20, 0).float() * torch.cat([torch.ones(10), torch.full((10,), 1e-23)])
    parts = [J[:, :10].double(), J[:, 10:].double()]
    for found, part in zip(gramians([row.split(10) for row in J]), parts, strict=True):
        expected = part @ part.T
        close(found, expected, 1e-6 * float(expected.diagonal().min()))


@given(jacobians(), jacobians())
def test_a_stack_is_split_matrix_by_matrix(one, other):
    tasks = min(len(one), len(other))
    matrices = [J[:tasks] @ J[:tasks].T for J in (one, other)]
    stack = Gramian.of(torch.stack(matrices))
    for norms, cosines, matrix in zip(stack.norms, stack.cosines, matrices, strict=True):
        assert torch.equal(norms, Gramian.of(matrix).norms)
        assert torch.equal(cosines, Gramian.of(matrix).cosines)


def test_combine_with_weights_of_each_tensors_own():
    J, w = random_jacobian(3, 5, 1), tensor([[1, 2, 3], [-1, 0, 0.5]])
    first, second = combine(rows_of(J, 2, 3), w)
    close(first, w[0] @ J[:, :2], 1e-14)
    close(second, w[1] @ J[:, 2:], 1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_combine_adds_weighted_rows_in_their_own_dtype(dtype):
    J = random_jacobian(3, 5, 1).to(dtype)
    w = tensor([0.5, -2, 3])
    parts = combine([[row[:2], row[2:].view(3, 1)] for row in J], w)
    assert [tuple(part.shape) for part in parts] == [(2,), (3, 1)]
    assert {part.dtype for part in parts} == {dtype}
    wide = torch.promote_types(dtype, torch.float32)
    expected = (w.to(wide) @ J.to(wide)).to(dtype)
    torch.testing.assert_close(torch.cat([part.reshape(-1) for part in parts]), expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_finite_names_the_row(bad):
    J = random_jacobian(3, 4, 2)
    J[1, 3] = bad
    assert finite([[row[:2], row[2:], row[:0]] for row in J]).tolist() == [True, False, True]


def test_empty_complex_tensors_are_finite():
    assert finite([[torch.zeros(2, dtype=torch.complex64), torch.zeros(0, dtype=torch.complex64)]]).tolist() == [True]


def test_rows_that_are_conjugate_by_a_flag_count_as_complex_numbers():
    z = torch.tensor([[1 + 2j, 3 - 1j], [2 - 1j, 1j]], dtype=torch.complex128)
    rows = [[row] for row in z.conj()]
    assert rows[0][0].is_conj()
    close(gramian(rows), (z @ z.conj().T).real, 1e-15)
