"""Which experts a model sends its tokens to, watched by capture."""

import torch

from harness.routing.capture import RoutingCapture

IDS = torch.arange(100, 228).reshape(4, 32)


def routed(moe) -> torch.Tensor:
    """Expert ids of every token, [L, tokens, k]."""
    capture = RoutingCapture(moe)
    with capture.installed(), torch.inference_mode():
        moe.model(IDS, use_cache=False)
    ids = capture.take(len(IDS)).experts
    return ids.reshape(len(moe.layers), -1, ids.shape[-1]).long()
