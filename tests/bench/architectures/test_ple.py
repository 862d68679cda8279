import pytest
import torch

from isonomy.bench.architectures.ple import PLE
from isonomy.bench.backbones.heads import LinearHead
from isonomy.bench.backbones.resnet import resnet18
from isonomy.bench.backbones.tops import Pooled
from isonomy.errors import IsonomyError
from tests.bench.architectures.networks import OFFICE, count, images, large, small


def plain():
    return resnet18(output_stride=32)


def test_counts():
    options = {"head": "linear", "encoder": plain, "gate_input": "image", "image": (3, 224, 224)}
    network = large(PLE, OFFICE, variant="libmtl", **options)
    assert count(network.parameters()) == 48_968_571
    assert count(network.shared_parameters()) == 11_176_512
    gates = [301_058, 401_410, 401_410, 200_706, 100_354]
    assert [count(gate.parameters()) for gate in network.gates["amazon"]] == gates
    # The paper's form has four gates of the shared stream besides, over four experts instead of two.
    paper = large(PLE, OFFICE, **options)
    assert count(paper.parameters()) == 48_968_571 + 2 * sum(gates[:4])


def parts(backbone):
    return [
        lambda x: backbone.maxpool(backbone.act1(backbone.bn1(backbone.conv1(x)))),
        backbone.layer1,
        backbone.layer2,
        backbone.layer3,
        backbone.layer4,
    ]


def gated(gate, x, experts):
    pooled = torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
    weights = torch.softmax(pooled @ gate.linear.weight.T + gate.linear.bias, dim=1)
    return torch.einsum("be,ebchw->bchw", weights, torch.stack(experts))


def sharpen(network):
    """Gates far from uniform, so that a wrong one shows."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if "gates" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator)


def test_the_papers_form_by_brute_force():
    network = small("ple", 2).eval()
    sharpen(network)
    shared = parts(network.shared[0])
    seg, depth = parts(network.own["seg"][0]), parts(network.own["depth"][0])
    x_s = x_seg = x_depth = images()
    for level in range(5):
        out_s, out_seg, out_depth = shared[level](x_s), seg[level](x_seg), depth[level](x_depth)
        next_seg = gated(network.gates["seg"][level], x_seg, [out_s, out_seg])
        next_depth = gated(network.gates["depth"][level], x_depth, [out_s, out_depth])
        if level < 4:
            x_s = gated(network.shared_gates[level], x_s, [out_s, out_seg, out_depth])
        x_seg, x_depth = next_seg, next_depth
    predictions = network(images()).predictions
    torch.testing.assert_close(predictions["seg"], network.heads["seg"](x_seg), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predictions["depth"], network.heads["depth"](x_depth), rtol=1e-4, atol=1e-5)


def test_libmtls_form_by_brute_force():
    network = small("ple libmtl", 2).eval()
    sharpen(network)
    predictions = network(images()).predictions
    for task, head in network.heads.items():
        x = images()
        for level in range(5):
            experts = [parts(network.shared[0])[level](x), parts(network.own[task][0])[level](x)]
            x = gated(network.gates[task][level], x, experts)
        torch.testing.assert_close(predictions[task], head(x), rtol=1e-4, atol=1e-5)


def test_only_the_papers_form_shares_own_experts():
    network = small("ple libmtl")
    assert {id(p) for p in network.shared_parameters()} == {id(p) for p in network.shared.parameters()}
    network = small("ple")
    shared = {id(p) for p in network.shared_parameters()}
    expert = network.own["seg"][0]
    assert {id(p) for p in expert.layer3.parameters()} <= shared
    assert not {id(p) for p in expert.layer4.parameters()} & shared


def test_finding_the_shapes_leaves_the_expert_alone():
    network = small("ple")
    assert network.shared[0].training
    assert network.shared[0].bn1.num_batches_tracked == 0
    assert torch.equal(network.shared[0].bn1.running_mean, torch.zeros(8))


def test_what_cannot_be_built_is_refused():
    with pytest.raises(IsonomyError, match="Unknown variant 'papr': did you mean 'paper'"):
        small("ple", variant="papr")
    with pytest.raises(IsonomyError, match="Pooled has none: use a ResNet"):
        PLE(lambda: Pooled(plain()), {"a": lambda: LinearHead((512,), 3)}, 0)
    with pytest.raises(IsonomyError, match=r"pass image=\(C, H, W\)"):
        small("ple", gate_input="image")
