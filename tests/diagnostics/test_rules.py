"""Rules, each on both sides of its threshold and where something else explains what is seen."""

import math

import pytest
import torch

from isonomy.diagnostics import findings
from isonomy.diagnostics.finding import number, percent
from tests.diagnostics.scenes import orthogonal, pair, seen
from tests.fixtures import tensor

NAN, INF = math.nan, math.inf


def kinds(recording):
    return [finding.kind for finding in findings(recording)]


def only(recording, kind):
    (finding,) = findings(recording)
    assert finding.kind == kind
    return finding


@pytest.mark.parametrize("looks", [1, 3, 40])
@pytest.mark.parametrize(("lead", "expected"), [(4.9, []), (5.1, ["dominance"])])
def test_dominance_begins_at_five_times_the_next(lead, expected, looks):
    assert kinds(seen(orthogonal(lead, 1), looks)) == expected


def test_dominance_says_who_by_how_much_and_at_whose_expense():
    found = only(seen(orthogonal(1, 41, 2)), "dominance")
    assert found.tasks == ("b", "a")
    square = 41**2 + 1 + 4
    assert found.evidence["lead"] == pytest.approx(41 / 2)
    assert found.evidence["share"] == pytest.approx(41**2 / square)
    assert found.evidence["lowest_alignment"] == pytest.approx(1 / square**0.5)
    assert found.evidence["share_after"] == pytest.approx(1 / 3)
    assert "'b' pulls 20 times as hard as 'c', the next" in found.text
    assert "'a' gets 2.4 % of the progress" in found.text
    assert 'isonomy.build("avgnorm", tasks)' in found.remedy
    assert "33 %" in found.remedy


@pytest.mark.parametrize(("lead", "expected"), [(9.4, []), (9.6, ["dominance"])])
def test_among_many_tasks_who_dominates_decides_nine_tenths(lead, expected):
    assert kinds(seen(orthogonal(lead, *[1.0] * 10))) == expected  # 9.49² is 9/10 of itself and ten


@pytest.mark.parametrize(("cosine", "expected"), [(0.1, ["dominance"]), (0.35, [])])
def test_who_decides_to_nobody_s_harm_does_not_dominate(cosine, expected):
    alignment = (20 * cosine + 1) / (20**2 + 1 + 40 * cosine) ** 0.5
    assert (alignment < 0.5 / 2**0.5) == bool(expected)
    assert kinds(seen(pair(cosine, 20, 1))) == expected


def test_weights_that_make_parts_even_leave_nothing_to_find():
    J = orthogonal(100, 1, 1)
    assert kinds(seen(J)) == ["dominance"]
    assert kinds(seen(J, weights=[0.01, 1, 1])) == []
    assert kinds(seen(J, loss_weights=[0.01, 1, 1])) == []
    assert kinds(seen(orthogonal(1, 1, 1), weights=[100, 1, 1])) == ["dominance"]


def test_a_balancer_that_leaves_all_others_out_dominates_by_one():
    found = only(seen(orthogonal(1, 1), weights=[1, 0]), "dominance")
    assert found.text.startswith("'a' alone decides all of the direction; 'b' gets none")


@pytest.mark.parametrize(("loss", "kind"), [(9.9, "dominance"), (10.1, "scale_mismatch")])
def test_a_unit_is_a_loss_ten_times_as_large(loss, kind):
    found = only(seen(orthogonal(2 * loss, 1), losses=[loss, 1]), kind)
    assert 'build("log"' in found.remedy
    assert found.tasks == ("a", "b")


def test_a_unit_says_so_in_its_sentences():
    found = only(seen(orthogonal(100, 1), losses=[100, 1]), "scale_mismatch")
    assert found.text.startswith("The loss of 'a' is 100 times that of 'b', so it pulls 100 times as hard")
    assert found.remedy.endswith("costs nothing and would take its share to 50 %.")
    assert found.evidence["loss_ratio"] == pytest.approx(100)


@pytest.mark.parametrize("losses", [[100, -1], [NAN, NAN], [1, 1], [1, 100]])
def test_losses_that_do_not_explain_it_leave_it_dominance(losses):
    found = only(seen(orthogonal(100, 1), losses=losses), "dominance")
    assert 'build("avgnorm"' in found.remedy


def test_units_are_judged_at_the_beginning():
    # The large loss has been learnt: it has fallen a hundred-fold and its gradient ten-fold, as a square's would.
    fallen = torch.linspace(0, -2, 20, dtype=torch.float64)
    J = torch.stack([orthogonal(1000 * 10 ** (power / 2), 1) for power in fallen])
    losses = torch.stack([1000 * 10**fallen, torch.ones(20)], 1)
    found = only(seen(J, losses=losses), "scale_mismatch")
    assert found.remedy.endswith("if used from the beginning.")
    only(seen(J[10:], losses=losses[10:]), "dominance")


@pytest.mark.parametrize(("norm", "expected"), [(0.21, []), (0.19, ["starvation"])])
def test_starvation_begins_at_a_fifth_of_the_typical_other(norm, expected):
    assert kinds(seen(orthogonal(1, 3, norm))) == expected


def test_starvation_says_who_and_how_much():
    found = only(seen(orthogonal(0.1, 1, 2, 0.02, 1)), "starvation")
    assert found.tasks == ("d", "a")
    assert found.evidence["part"] == pytest.approx(0.02)
    assert "'d' and 'a' starve: 'd' pulls 0.02 times as hard as a typical other task" in found.text
    assert found.evidence["alignment_after"] == pytest.approx(5**-0.5)


def test_starvation_tells_how_losses_fell():
    looks = 20
    losses = torch.stack([torch.linspace(1, end, looks, dtype=torch.float64) for end in (0.1, 0.3, 0.98)], 1)
    found = only(seen(orthogonal(1, 1, 0.01), looks, losses=losses), "starvation")
    assert "its loss has changed by −1.8 %, that of the others by −85 %" in found.text
    assert found.evidence["loss_change"] == pytest.approx(float(losses[-2, 2] / losses[1, 2]) - 1)


def test_one_who_dominates_does_not_make_the_others_starve():
    assert kinds(seen(orthogonal(1000, 1, 1))) == ["dominance"]
    assert kinds(seen(orthogonal(1000, 1, 1, 0.01))) == ["dominance", "starvation"]


def test_of_two_none_starves():
    assert kinds(seen(orthogonal(1, 0.001))) == ["dominance"]


def test_a_short_gradient_that_points_where_the_step_goes_does_not_starve():
    assert kinds(seen([[1, 0, 0], [0, 1, 0], [0.05, 0.05, 0]])) == []


@pytest.mark.parametrize(("cosine", "expected"), [(-0.48, []), (-0.52, ["conflict"])])
def test_tasks_pull_apart_from_120_degrees_on(cosine, expected):
    assert kinds(seen(pair(cosine))) == expected
    assert kinds(seen(pair(cosine), weights=NAN)) == expected


def test_who_pulls_apart_is_left_alone_while_both_improve():
    found = only(seen(pair(-0.8)), "conflict")
    assert found.tasks == ("a", "b")
    assert found.evidence["compromise"] == pytest.approx(0.1**0.5)
    assert "32 %" in found.text
    assert found.remedy.startswith("Nothing has to be done while both improve")


@pytest.mark.parametrize(("cosine", "expected"), [(-0.34, []), (-0.36, ["conflict"])])
def test_a_task_is_made_worse_from_a_cosine_of_a_tenth_on(cosine, expected):
    alignment = (4 * cosine + 1) / (17 + 8 * cosine) ** 0.5
    assert (alignment < -0.1) == bool(expected)
    assert kinds(seen(pair(cosine, 4, 1))) == expected


def test_conflict_says_who_pushes_whom_and_what_would_turn_it():
    J = tensor([[4, 0, 0], [-0.7, 0.7, 0], [0, 0, 2]])
    found = only(seen(J), "conflict")
    assert found.tasks == ("a", "b")
    assert "The step makes 'b' worse" in found.text
    assert found.evidence["cosine"] == pytest.approx(-(0.5**0.5))
    assert 'build("avgnorm"' in found.remedy
    unit = J / J.norm(dim=1, keepdim=True)
    step = unit.sum(0)
    assert found.evidence["alignment_after"] == pytest.approx(float(unit[1] @ step / step.norm()))


def test_a_negative_weight_is_nobody_else_s_fault():
    found = only(seen(orthogonal(1, 1, 1), weights=[1, 1, -1]), "conflict")
    assert found.tasks == ("c",)
    assert "since its weight is negative" in found.text


def test_two_against_one_needs_more_than_even_norms():
    found = only(seen([[1, 0, 0], [1, 0.1, 0], [-0.8, 0, 0.6]]), "conflict")
    assert found.tasks[-1] == "c"
    assert 'build("imtl_g"' in found.remedy


@pytest.mark.parametrize("J", [pair(-1, 40, 1), pair(-1, 4, 1), pair(-0.999, 4, 1)])
def test_where_no_weighting_helps_it_says_so(J):
    found = findings(seen(J))
    assert {finding.kind for finding in found} >= {"conflict"}
    assert all("No weighting of these gradients serves all tasks" in finding.remedy for finding in found)


def test_a_sign_is_no_conflict():
    assert kinds(seen(pair(-0.05))) == []


@pytest.mark.parametrize(("zeros", "expected"), [(17, ["starvation"]), (18, ["dead_head"]), (20, ["dead_head"])])
def test_a_head_is_dead_if_it_is_silent_in_nearly_all_recent_looks(zeros, expected):
    J = orthogonal(1, 1, 1).repeat(40, 1, 1)
    J[20 : 20 + zeros, 1] = 0
    assert kinds(seen(J)) == expected


@pytest.mark.parametrize(("norm", "kind"), [(1.1e-8, "starvation"), (0.9e-8, "dead_head")])
def test_a_head_is_dead_below_what_float32_can_tell(norm, kind):
    assert only(seen(orthogonal(1, norm, 1)), kind).tasks == ("b",)


def test_a_small_unit_is_not_death():
    assert kinds(seen(orthogonal(1, 1e-12, 1), losses=[1, 1e-12, 1])) == ["starvation"]


def test_a_solved_task_is_not_dead():
    assert kinds(seen(orthogonal(1, 0, 1), losses=[1, 0, 1])) == []


def test_the_dead_are_named_and_nobody_dominates_them():
    found = only(seen(orthogonal(1, 0), losses=[1, 0.7]), "dead_head")
    assert found.text.startswith("'b' has no gradient at the shared part, with a loss of 0.7: it teaches")
    assert only(seen(orthogonal(0, 0)), "dead_head").tasks == ("a", "b")
    assert only(seen([[0.0, 0]], losses=3), "dead_head").tasks == ("a",)


def course(*values):
    return tensor(values)[:, None]


@pytest.mark.parametrize(("last", "expected"), [(0.9, []), (1.1, ["exploding_loss"])])
def test_a_loss_explodes_at_ten_times_its_best(last, expected):
    losses = course(*[1.0] * 5, *[0.1] * 10, *[last] * 5)
    assert kinds(seen([[1.0]], 20, losses=losses)) == expected


def test_a_loss_that_explodes_says_from_where_to_where():
    found = only(seen([[1.0]], 20, losses=course(*[1.0] * 5, *[0.1] * 10, *[40.0] * 5)), "exploding_loss")
    assert found.text == "The loss of 'a' is 400 times its best: 40 after 0.1 about step 50."
    assert found.evidence["ratio"] == pytest.approx(400)


@pytest.mark.parametrize(
    "losses",
    [
        course(*[0.1] * 4, *[9.0] * 5),  # too few looks
        course(1, 1, 2, 100, 100, 100, 19),
        course(1, 100, 100, 100),
        course(*[1.0] * 5, *[1e-9] * 10, *[1e-3] * 5),  # rounding of a solved task
        course(*[-1.0] * 5, *[0.1] * 10, *[40.0] * 5),  # no ratio
        course(*[1.0] * 5, *[0.0] * 10, *[0.5] * 5),
        course(*[1.0] * 5, *[0.1] * 10, *[50.0] * 4, 0.9),  # some bad batches
    ],
)
def test_no_explosion(losses):
    assert kinds(seen([[1.0]], len(losses), losses=losses)) == []


def test_what_explodes_at_once_is_found_in_few_looks():
    found = only(seen([[1.0]], 6, losses=course(1, 1, 2, 100, 1000, 1e9)), "exploding_loss")
    assert found.evidence["ratio"] == pytest.approx(1000)


def test_who_explodes_alone_is_told_so():
    rising = course(*[1.0] * 5, *[0.1] * 10, *[40.0] * 5)
    alone = seen(orthogonal(1, 1), 20, losses=torch.cat([rising, torch.ones(20, 1)], 1))
    assert "that of its head first" in only(alone, "exploding_loss").remedy
    both = findings(seen(orthogonal(1, 1), 20, losses=torch.cat([rising, 2 * rising], 1)))
    assert [finding.tasks for finding in both] == [("a",), ("b",)]
    assert all("other losses rise as well" in finding.remedy for finding in both)


@pytest.mark.parametrize(("factor", "expected"), [(1.9, []), (2.2, ["noise"])])
def test_norms_that_double_from_look_to_look_are_noise(factor, expected):
    norms = tensor([factor ** (k % 2) * 0.5**k for k in range(32)])  # on top of a steep trend
    J = orthogonal(1, 1) * norms[:, None, None]
    assert kinds(seen(J)) == expected


@pytest.mark.parametrize(("looks", "expected"), [(16, []), (18, ["noise"])])
def test_a_few_jumps_are_no_noise(looks, expected):
    J = orthogonal(1, 1) * (10.0 ** (torch.arange(looks) % 2))[:, None, None]
    assert kinds(seen(J)) == expected


def test_noise_names_who_jumps():
    J = orthogonal(1, 1, 1).repeat(40, 1, 1)
    J[1::2, 1] *= 3
    J[1::2, 2] *= 4
    found = only(seen(J), "noise")
    assert found.tasks == ("c", "b")
    assert found.evidence["factor"] == pytest.approx(4 ** (18 / 19))  # of 19 moves, ten go up
    assert "in the worst case, by a factor of 3.7 from" in found.text


def test_numbers_that_are_not_finite_are_named():
    losses = torch.ones(20, 2, dtype=torch.float64)
    for bad in (INF, NAN):
        losses[15:18, 1] = bad
        found = only(seen(orthogonal(1, 1), 20, losses=losses), "nonfinite")
        assert found.tasks == ("b",)
        assert "at 3 of 10 looks" in found.text
    recording = seen(orthogonal(1, 1), 4)
    for bad in (INF, NAN):
        recording.norms[2, 0] = bad
        assert only(recording, "nonfinite").tasks == ("a",)


def test_a_network_that_is_lost_altogether_is_named():
    J = orthogonal(1, 1).repeat(8, 1, 1)
    J[4:] = NAN
    assert only(seen(J), "nonfinite").tasks == ("a", "b")


def test_what_is_absent_or_was_not_measured_is_not_wrong():
    J = orthogonal(1, 1, 1).repeat(20, 1, 1)
    J[::2, 1] = NAN
    assert kinds(seen(J)) == []
    recording = seen(orthogonal(1, 1), 20, losses=[NAN, 1])  # a sum's term without a variable
    assert kinds(recording) == []
    recording.norms[::3] = NAN
    assert kinds(recording) == []


def test_absent_tasks_take_no_part_in_the_looks_without_them():
    J = orthogonal(50, 1, 1).repeat(20, 1, 1)
    J[::2, 0] = NAN
    assert kinds(seen(J)) == ["dominance"]


@pytest.mark.parametrize(("skipped", "expected"), [(0, []), (2, ["nonfinite"])])
def test_one_skipped_step_in_a_hundred_is_too_many(skipped, expected):
    counts = torch.zeros(20, dtype=torch.float64)
    counts[:5] = 30  # while a GradScaler found its scale
    counts[15] = skipped
    recording = seen(orthogonal(1, 1), 20, skipped=counts)
    assert kinds(recording) == expected
    if expected:
        (found,) = findings(recording)
        assert found.evidence["skipped"] == pytest.approx(2 / 102)
        assert found.tasks == ()


def test_half_a_percent_of_skipped_steps_is_fine():
    counts = torch.zeros(60, dtype=torch.float64)
    counts[40] = 1
    assert kinds(seen(orthogonal(1, 1), 60, skipped=counts)) == []


def test_methods_without_weights_are_judged_by_what_there_is():
    assert kinds(seen(orthogonal(100, 1, 1), 20, weights=NAN)) == []
    assert kinds(seen(orthogonal(1, 0, 1), 20, weights=NAN)) == ["dead_head"]
    losses = course(*[1.0] * 5, *[0.1] * 10, *[40.0] * 5)
    assert kinds(seen(pair(-0.9), 20, losses=losses, weights=NAN)) == ["exploding_loss", "exploding_loss", "conflict"]


def test_the_recent_training_counts():
    J = orthogonal(1, 1).repeat(40, 1, 1)
    J[:20, 0] *= 100
    assert kinds(seen(J)) == []
    assert kinds(seen(J.flip(0))) == ["dominance"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (41.4, "41"), (0.0243, "0.024"), (-0.31, "−0.31"), (1234, "1200"), (3e7, "3.0e+07"), (1e-9, "1.0e−09")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("share", "text"), [(0.974, "97 %"), (0.999, "more than 99 %"), (1, "100 %"), (1e-5, "none")])
def test_all_and_nothing_are_said_only_where_they_are_so(share, text):
    assert percent(share) == text
