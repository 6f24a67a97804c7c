"""The code that runs inside vLLM's workers: routing capture and steering.

vLLM mixes `RoutingExtension` into its worker class and calls the methods by name in each worker. Names begin with
`harness_`, since vLLM refuses an extension whose names it has already. Nothing here imports vLLM.

A router hands the chosen experts to vLLM's own capture function, before expert parallelism maps logical experts to
physical ones. Their weights, and a mask on the logits, take a wrapper around its `_compute_routing`, whatever rule
that follows. A step's rows are the scheduled tokens of its requests, one request after another in the order of the
runner's input batch; rows behind them pad the step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch


class Step(NamedTuple):
    """The routing of one step: the rows of its first request, then those of its second, and so on.

    Attributes:
        requests: vLLM's own ids.
        starts: int64 [requests], position in each request's tokens of its first row.
        lengths: int64 [requests], rows of each.
        experts: int16 [rows, L, k].
        weights: float32 [rows, L, k], the gate weights.
        logits: float32 [rows, L, E], or None where they are not kept.
    """

    requests: list[str]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    experts: npt.NDArray[np.int16]
    weights: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32] | None


class _Layer:
    """One MoE layer's router, listened to and steered."""

    def __init__(self, index: int, router: Any) -> None:
        self.index = index
        self.router = router
        self.keep = self.keep_logits = False
        self.masked: torch.Tensor | None = None
        self.own_bias: torch.Tensor | None = None
        self.broken = False
        self.clear()
        self._compute: Callable[..., tuple[torch.Tensor, torch.Tensor]] = router._compute_routing
        router._compute_routing = self._routing
        router.set_capture_fn(self._chosen)

    def mask(self, experts: torch.Tensor | None) -> None:
        """Keep these experts from being routed to, whatever their score and the bias that corrects it; None ends it."""
        import torch

        bias: Any = getattr(self.router, "e_score_correction_bias", None)
        if self.own_bias is not None:
            bias.data.copy_(self.own_bias)
        self.masked, self.own_bias, self.broken = experts, None, False
        if experts is not None and bias is not None:
            self.own_bias = bias.detach().clone()
            # Half of the lowest number: kernels add scores to it.
            bias.data[..., experts.to(bias.device)] = torch.finfo(bias.dtype).min / 2

    def clear(self) -> None:
        """Forget the rows of earlier steps."""
        self.experts: list[torch.Tensor] = []
        self.weights: list[torch.Tensor] = []
        self.logits: list[torch.Tensor] = []

    def _routing(
        self, hidden_states: torch.Tensor, router_logits: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        if self.keep and self.keep_logits:
            self.logits.append(router_logits.to(torch.float32, copy=True))
        if self.masked is not None:
            lowest = torch.finfo(router_logits.dtype).min
            router_logits = router_logits.index_fill(-1, self.masked.to(router_logits.device), lowest)
        weights, experts = self._compute(hidden_states, router_logits, *args, **kwargs)
        if self.masked is not None and not self.broken:
            self.broken = bool(torch.isin(experts, self.masked.to(experts)).any())
        if self.keep:
            # A copy, as of the others: kernels may use the buffer again before the step is over.
            self.weights.append(weights.to(torch.float32, copy=True))
        return weights, experts

    def _chosen(self, experts: torch.Tensor) -> None:
        import torch

        if self.keep:
            self.experts.append(experts.to(torch.int16, copy=True))


class RoutingExtension:
    """Methods that vLLM's workers gain; called through `LLM.collective_rpc`."""

    # Set by vLLM's worker class.
    model_runner: Any
    rank: int

    def harness_install(self) -> list[tuple[int, int, int]]:
        """Find the MoE layers and listen to their routers; returns each one's true index, experts and k.

        Raises:
            RuntimeError: a layer chooses its experts inside one fused kernel, where they cannot be seen.
        """
        layers = []
        for name, module in self.model_runner.model.named_modules():
            router = getattr(module, "router", None)
            if not (hasattr(router, "_compute_routing") and hasattr(router, "set_capture_fn")):
                continue
            if module.is_monolithic:
                raise RuntimeError(f"'{name}' routes inside a fused kernel")
            layers.append(_Layer(int(module.layer_id), router))
        self._harness_layers = sorted(layers, key=lambda layer: layer.index)
        self._harness_steps: list[Step] = []
        self._harness_execute = self.model_runner.execute_model
        self.model_runner.execute_model = self._harness_step
        return [
            (layer.index, int(layer.router.global_num_experts), int(layer.router.top_k))
            for layer in self._harness_layers
        ]

    def harness_capture(self, keep: bool, logits: bool = False) -> None:
        """Begin or stop keeping what is routed.

        Under tensor parallelism all ranks see the same rows, so that only the first keeps them.
        """
        for layer in self._harness_layers:
            layer.keep = keep and self.rank == 0
            layer.keep_logits = logits
            layer.clear()
        self._harness_steps.clear()

    def harness_take(self) -> list[Step]:
        """Return what was kept since the last call."""
        steps, self._harness_steps = self._harness_steps, []
        return steps

    def harness_mask(self, experts: Mapping[int, Sequence[int]]) -> None:
        """Keep these experts, by layer, from being routed to; no experts at all end it."""
        import torch

        for layer in self._harness_layers:
            chosen = experts.get(layer.index)
            layer.mask(torch.tensor(sorted(chosen)) if chosen else None)

    def harness_unmasked(self) -> int | None:
        """Return the first layer that chose a masked expert nevertheless."""
        return next((layer.index for layer in self._harness_layers if layer.broken), None)

    def _harness_step(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        for layer in self._harness_layers:
            layer.clear()
        result = self._harness_execute(scheduler_output, *args, **kwargs)
        # A dense model has no layer to listen to.
        if any(layer.keep for layer in self._harness_layers) and scheduler_output.total_num_scheduled_tokens:
            self._harness_split(scheduler_output.num_scheduled_tokens)
        return result

    def _harness_split(self, scheduled: Mapping[str, int]) -> None:
        """Assign the step's rows to requests."""
        experts, weights, logits = self._harness_rows()
        batch = self.model_runner.input_batch
        requests = list(batch.req_ids[: batch.num_reqs])
        starts = np.array(batch.num_computed_tokens_cpu[: batch.num_reqs], dtype=np.int64)
        lengths = np.array([scheduled[request] for request in requests], dtype=np.int64)
        n = int(lengths.sum())
        if n != sum(scheduled.values()) or n > len(experts):
            raise RuntimeError(f"a step of {sum(scheduled.values())} tokens routed {len(experts)} rows")
        # Rows behind them pad the step.
        self._harness_steps.append(
            Step(requests, starts, lengths, experts[:n], weights[:n], None if logits is None else logits[:n])
        )

    def _harness_rows(
        self,
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.float32], npt.NDArray[np.float32] | None]:
        import torch

        calls = {layer.index: (len(layer.experts), len(layer.weights)) for layer in self._harness_layers}
        for index, counts in calls.items():
            if counts != (1, 1):
                raise RuntimeError(f"the router of layer {index} was called {counts} times in a step")
        # Stacked where they are: one copy to the host per step.
        layers = self._harness_layers
        experts = torch.stack([layer.experts[0] for layer in layers], dim=1).cpu().numpy()
        weights = torch.stack([layer.weights[0] for layer in layers], dim=1).cpu().numpy()
        if not layers[0].logits:
            return experts, weights, None
        return experts, weights, torch.stack([layer.logits[0] for layer in layers], dim=1).cpu().numpy()
