"""A model is captured while other threads run its layers."""

import threading

import torch
from torch import nn

from grounding import TopDown
from grounding.attention import layers


class Flip(nn.Module):
    """A layer with a rule of its own, which tells when it begins, and waits."""

    def __init__(self):
        super().__init__()
        self.begins = self.ends = lambda: None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.begins()
        self.ends()
        return x.flip(3)


class BusyNet(nn.Module):
    """Another thread is in its layer ``flip`` whenever it computes the next operation."""

    def __init__(self):
        super().__init__()
        self.first, self.flip, self.last = nn.Conv2d(3, 4, 3), Flip(), nn.Conv2d(4, 2, 1)
        self.other = torch.rand(1, 4, 6, 6)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        inside, done = threading.Event(), threading.Event()
        self.flip.begins, self.flip.ends = inside.set, lambda: done.wait(10)
        other = threading.Thread(target=self.flip, args=(self.other,))
        other.start()
        inside.wait(10)
        values = self.first(images)
        done.set()
        other.join()
        return self.last(self.flip(values)).mean((2, 3))


def test_a_capture_ignores_other_threads_that_run_its_layers(monkeypatch):
    monkeypatch.setitem(
        layers.RULES, Flip, lambda rules, module, x: (x.apply(module), rules.engine.plain(lambda g: [g.flip(3)]))
    )
    torch.manual_seed(0)
    net, image = BusyNet().eval(), torch.rand(1, 3, 9, 9)
    scene = TopDown(net, "first", "last").look(image)
    torch.testing.assert_close(scene.logits, net(image))
    assert scene.attend([0]).shape == (1, 1, 7, 7)
