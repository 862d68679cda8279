"""Mixed precision: autocast, a GradScaler for float16, clipping in between. The losses end where float32 takes them."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss

import isonomy

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def train(dtype):
    torch.manual_seed(0)
    x = torch.randn(512, 16)
    kind, size = (x @ torch.randn(16, 4)).argmax(1), x[:, :1]
    encoder = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
    heads = nn.ModuleDict({"kind": nn.Linear(32, 4), "size": nn.Linear(32, 1)})
    model = nn.ModuleDict({"encoder": encoder, "heads": heads}).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    balancer = isonomy.build("imtl_g", ["kind", "size"])
    # bfloat16 has the range of float32 and needs none.
    scaler = torch.amp.GradScaler(DEVICE, enabled=dtype == torch.float16)
    first, skipped = None, 0

    for _epoch in range(10):
        for index in torch.randperm(len(x)).split(64):
            batch = x[index].to(DEVICE)
            with torch.autocast(DEVICE, dtype=dtype, enabled=dtype != torch.float32):
                z = encoder(batch)
                losses = {
                    "kind": cross_entropy(heads["kind"](z), kind[index].to(DEVICE)),
                    "size": 1e-6 * l1_loss(heads["size"](z), size[index].to(DEVICE)),
                }
            # The scaler goes in as well: the second task's gradients, near 1e-8, would be 0 in float16.
            loss = balancer(losses, shared=z, grad_scaler=scaler)

            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            before = scaler.get_scale()
            scaler.update()
            skipped += scaler.get_scale() < before
            first = first or balancer.report

    print(f"{dtype}: {skipped} steps skipped")
    for t, task in enumerate(balancer.tasks):
        print(f"{task}: loss {first.losses[t]:.3g} -> {balancer.report.losses[t]:.3g}")


def main():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        train(dtype)


if __name__ == "__main__":
    main()
