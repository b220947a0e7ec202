"""What a model is, so that a test can say that it was left alone."""

from torch import nn

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_load_state_dict_pre_hooks",
)


def _tensor(tensor) -> tuple:
    """A tensor's identity, and what could have been done to it."""
    version = None if tensor.is_inference() else tensor._version
    flags = (tensor.requires_grad, tensor.grad, tensor.grad_fn, tensor.stride(), tensor.dtype, tensor.device)
    return id(tensor), version, flags, tensor.detach().cpu().contiguous().numpy().tobytes()


def snapshot(net: nn.Module) -> list:
    """Everything about a model that a look must not change."""
    found = []
    for name, module in net.named_modules():
        values = {key: id(value) for key, value in vars(module).items() if key not in ("calls",)}
        hooks = [(kind, list(getattr(module, kind).items())) for kind in HOOKS]
        names = [list(vars(module)[kind]) for kind in ("_parameters", "_buffers", "_modules")]
        tensors = [*module._parameters.items(), *module._buffers.items()]
        states = {key: _tensor(tensor) for key, tensor in tensors if tensor is not None}
        flags = (type(module), module.training, getattr(module, "inplace", None))
        found.append((name, flags, values, hooks, names, states))
    return found


def assert_untouched(net: nn.Module, before: list):
    after = snapshot(net)
    assert [entry[0] for entry in after] == [entry[0] for entry in before]
    for now, then in zip(after, before, strict=True):
        for part, was in zip(now[1:], then[1:], strict=True):
            assert part == was, now[0]
