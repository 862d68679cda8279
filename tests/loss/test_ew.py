import isonomy
from tests.fixtures import M, close


def test_weights_are_one():
    m = M()
    balancer = isonomy.build("ew", tasks=3)
    loss = m.step(balancer)
    close(loss, 4.5)
    close(balancer.report.loss_weights, [1, 1, 1], 0)
    close(m.theta.grad, [4, 1])
    close(m.heads, [2, -2, 6])
